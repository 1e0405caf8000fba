"""Jobs of the study in the process of the test."""

import pytest

from cadenza.studies.running import missing


@pytest.fixture
def in_process(monkeypatch):
    """Jobs run in this process, one after the other, after those that they wait for; their names."""
    asked = []

    def run_jobs(jobs, slots):
        for job in jobs:
            asked.append(job.name)
            yield job, job.call(*job.arguments)

    monkeypatch.setattr(missing, "run_jobs", run_jobs)
    return asked
