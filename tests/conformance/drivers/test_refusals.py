"""Error messages of programs are mapped to error classes, for all names of layers and homes."""

import pytest

from graphdriver.errors import BadArchive, DriverError, LayerInUse, LayerNotFound, QuotaNotSupported
from graphdriver_conformance.drivers.refusals import refusal


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('layer "busybox" is not known', LayerNotFound),
        ("lstat /srv/quota/layers/x: no such file or directory", LayerNotFound),
        ("unlinkat /srv/x/merged: device or resource busy", LayerInUse),
        ("layer 'not found' has children", LayerInUse),
        ("archive/tar: invalid tar header", BadArchive),
        ("quotas are not supported by the file system", QuotaNotSupported),
        ("something went wrong with 'quota'", DriverError),
    ],
)
def test_ids_are_not_split_into_words(text: str, kind: type[DriverError]) -> None:
    found = refusal(text)

    assert kind is type(found)
    assert str(found) == text
