"""Rotary positions, by complex numbers in float64."""

import torch


def rotated(x, positions, theta=10_000.0):
    """`x` (..., head_dim) with pairs as complex numbers, turned by exp(i p theta^(-2j/d)), in float64."""
    half = x.shape[-1] // 2
    turn = torch.stack([positions.double() * theta ** (-j / half) for j in range(half)], dim=-1)
    z = torch.complex(x[..., :half].double(), x[..., half:].double()) * torch.polar(
        torch.ones_like(turn), turn
    )
    return torch.cat([z.real, z.imag], dim=-1)
