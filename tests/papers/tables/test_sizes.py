from __future__ import annotations

import pytest
import torch

from detect.analysis.profile import count_bytes
from detect.models.build import build_classifier
from detect.papers.tables.tables import FILE_MIB
from tests.models.thin import thin


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num_classes", "megabytes"),
    thin(
        [
            ("resnet32", 100, 1.83),
            ("resnet32+bdsc", 100, 0.36),
            ("resnet32+bdsc+p=2", 100, 0.63),
            ("resnet32+bdsc+p=3+width=3", 100, 7.24),
            ("resnet32+conv=bdsc-float+width=2", 100, 8.35),
            ("densenet40+bdsc+p=6", 10, 2.95),
            ("resnet18+bdsc", 1000, 9.00),
            ("resnet34+bdsc", 1000, 14.6),
        ],
        0,
        1,
        2,
        6,
    ),
)
def test_published_sizes(name: str, num_classes: int, megabytes: float) -> None:
    """BDSC, Tables 1, 2, 3 and 5, in MiB; ``configs/tables`` has all of their rows."""
    with torch.device("meta"):
        model = build_classifier(name, num_classes)
    found = count_bytes(model) / 2**20 + FILE_MIB
    assert found == pytest.approx(megabytes, abs=0.02 + 0.005 * megabytes)


def test_channels_of_the_text_give_other_sizes() -> None:
    """S from the input's channels, as the paper's text has it: 8.45, where its Table 3 says 9.00."""
    with torch.device("meta"):
        model = build_classifier("resnet18+bdsc+p_of=input", 1000)
    assert count_bytes(model) / 2**20 + FILE_MIB == pytest.approx(8.446, abs=5e-4)
