"""The loss of a student against the soft targets of a teacher."""

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the classes at temperature T, the mean over examples; in nats.

    By T^2 the gradient stays as large as that of the cross-entropy, whatever T is (Hinton et al., arXiv
    1503.02531, section 2.1). It is computed in float32, and in float64 if `student` is.

    Args:
        student, teacher: (examples, classes) logits.
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    ours, theirs = (log_softmax(each.to(dtype) / temperature, -1) for each in (student, teacher))
    return temperature**2 * kl_div(ours, theirs, reduction="batchmean", log_target=True)
