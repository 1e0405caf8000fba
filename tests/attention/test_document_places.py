"""Where documents lie: lengths and places from masks and ids, the way there and back, and dtypes."""

import pytest
import torch

from cadenza.attention.anchor import Anchor
from cadenza.attention.documents import Documents, from_ids, from_mask
from cadenza.surgery import SurgeryError

CPU = torch.device("cpu")
TWO_ROWS = torch.tensor([[0, 1, 1, 2, -1], [0, 1, 2, 2, 3]])


def test_rows_of_equal_numbers_are_apart():
    for ids, lengths in (
        ([[1, 2], [1, 2]], (1, 1, 1, 1)),
        ([[1, 1], [1, 1], [1, 1]], (2, 2, 2)),
        ([[2, 2], [1, 1]], (2, 2)),
        ([[3, 1], [1, 2], [2, 1]], (1, 1, 1, 1, 1, 1)),
    ):
        assert from_ids(torch.tensor(ids), CPU).lengths == lengths


def test_padding_may_stand_on_either_side():
    documents = from_ids(torch.tensor([[-1, 1, 1, 2], [4, 4, -1, -1]]), CPU)
    assert documents.lengths == (2, 1, 2)
    assert documents.indices.tolist() == [1, 2, 3, 4, 5]
    assert from_ids(torch.tensor([[1, 1, 2]]), CPU).indices is None


@pytest.mark.parametrize(
    "ids", [[[1, -1, 1]], [[1, 2, 1]], [[1, 1, 2], [2, -1, 2]], [[1, 1, 2], [3, 2, 3]], [[1, 2, 1, -1]]]
)
def test_a_document_in_two_pieces_is_refused_in_any_row(ids):
    with pytest.raises(SurgeryError, match="interrupted by padding or by another document"):
        from_ids(torch.tensor(ids), CPU)


def test_ids_of_any_dtype():
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.float32, torch.bfloat16, torch.float64):
        assert from_ids(torch.tensor([[1, 1, 2]], dtype=dtype), CPU).lengths == (2, 1)
    assert from_ids(torch.tensor([[1.0, 1, 2]], requires_grad=True), CPU).lengths == (2, 1)
    assert from_ids(torch.tensor([[1, 2**40, 2**40, -1]]), CPU).lengths == (1, 2)


def test_numbers_that_mean_nothing_are_refused():
    for ids in ([[0, 1]], [[1, -2]], [[1.0, -1.2]], [[1.0, 1.5]], [[1.0, torch.nan]], [[1.0, torch.inf]]):
        with pytest.raises(SurgeryError, match=r"must be 1, 2, \.\.\. for documents"):
            from_ids(torch.tensor(ids), CPU)
    with pytest.raises(SurgeryError, match="nothing but padding"):
        from_ids(torch.tensor([[-1, -1]]), CPU)


def test_rows_of_a_mask():
    assert from_mask(None, 3, 5, CPU).lengths == (5, 5, 5)
    documents = from_mask(torch.tensor([[0, 1, 1], [2, 0, 0]]), 2, 3, CPU)
    assert documents.lengths == (2, 1)
    assert documents.indices.tolist() == [1, 2, 3]
    assert (
        from_mask(torch.ones(2, 3), 3, 2, CPU) == "attention_mask has shape (2, 3), and not (batch, length)"
    )
    assert from_mask(torch.tensor([[1, 0, 1]]), 1, 3, CPU) == "attention_mask has padding between real tokens"
    assert from_mask(torch.zeros(1, 3), 1, 3, CPU) == "the batch is nothing but padding"
    assert from_mask(None, 0, 3, CPU) == "the batch is empty"


def test_there_and_back():
    documents = Documents((2, 1), CPU, torch.tensor([1, 2, 4]))
    tokens = torch.arange(12.0).view(2, 3, 2) + 1
    gathered = documents.gather(tokens)
    assert gathered.tolist() == [[[3, 4], [5, 6], [9, 10]]]
    back = [[[0, 0], [3, 4], [5, 6]], [[0, 0], [9, 10], [0, 0]]]
    assert documents.scatter(gathered, 2, 3).tolist() == back
    whole = Documents((3, 3), CPU)
    assert whole.gather(tokens).tolist() == [tokens.flatten(0, 1).tolist()]
    assert whole.scatter(whole.gather(tokens), 2, 3).tolist() == tokens.tolist()


def test_counts_places_and_their_dtypes():
    documents = Documents((2, 2, 3, 2), CPU)
    assert (documents.total, documents.longest) == (9, 3)
    assert documents.runs == [(2, 2), (1, 3), (1, 2)]
    assert documents.cu_seqlens.tolist() == [0, 2, 4, 7, 9]
    assert documents.of_token.tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert documents.positions.tolist() == [0, 1, 0, 1, 0, 1, 2, 0, 1]
    assert documents.cu_seqlens.dtype == documents.of_token.dtype == torch.int32
    assert documents.positions.dtype == torch.int64


def test_anchors_and_what_they_are_seen_by():
    documents = Anchor().documents(TWO_ROWS, CPU)
    assert documents.lengths == (1, 2, 1, 1, 1, 2, 1)
    assert documents.anchors == (0, 0, 0, 3, 3, 3, 3)
    assert documents.anchor_tokens.tolist() == [0, 0, 0, 4, 4, 4, 4]
    assert documents.anchor_of_token.tolist() == [0, 0, 0, 0, 4, 4, 4, 4, 4]
    assert documents.anchored_cu_seqlens.tolist() == [0, 1, 4, 6, 7, 9, 12, 14]
    assert documents.anchored_keys.tolist() == [0, 10, 1, 2, 11, 3, 4, 13, 5, 14, 6, 7, 15, 8]
    assert documents.anchored_cu_seqlens.dtype == torch.int32
    assert documents.anchored_keys.dtype == documents.anchor_of_token.dtype == torch.int64


def test_without_its_padding_a_batch_keeps_its_anchors():
    documents = Anchor().documents(TWO_ROWS, CPU)
    alone = documents.without_padding()
    assert documents.indices is not None
    assert alone.indices is None
    assert (alone.lengths, alone.anchors) == (documents.lengths, documents.anchors)
    assert alone.without_padding() is alone


def test_a_batch_remembers_and_does_not_show_it():
    documents, made = Documents((2,), CPU), []
    for key in ("a", "a", "b"):
        documents.once(key, lambda key=key: made.append(key) or key)
    assert made == ["a", "b"]
    assert documents.once("a", list) == "a"
    assert "memory" not in repr(documents)


def test_everything_stands_where_the_tokens_are():
    documents = Documents((1, 2), torch.device("meta"), anchors=(0, 0))
    for name in ("cu_seqlens", "of_token", "positions", "anchor_tokens", "anchor_of_token"):
        assert getattr(documents, name).device.type == "meta", name
    assert documents.anchored_cu_seqlens.device.type == "meta"
    assert Anchor("anchor", True).positions(documents).device.type == "meta"
    assert from_mask(torch.tensor([[1, 0]]), 1, 2, torch.device("meta")).indices.device.type == "meta"


def test_positions_by_mode():
    def positions(mode, reset):
        anchor = Anchor(mode, reset)
        return anchor.positions(anchor.documents(TWO_ROWS, CPU))

    assert positions("anchor", True).tolist() == [0, 1, 2, 1, 0, 1, 1, 2, 1]
    assert positions("intra_document", True).tolist() == [0, 0, 1, 0, 0, 0, 0, 1, 0]
    for mode in ("anchor", "intra_document", "full"):
        assert positions(mode, False) is None


def test_documents_by_mode():
    assert Anchor("full").documents(TWO_ROWS, CPU).lengths == (4, 5)
    assert Anchor("full").documents(TWO_ROWS, CPU).anchors == ()
    assert Anchor("intra_document").documents(TWO_ROWS, CPU).lengths == (1, 2, 1, 1, 1, 2, 1)
    assert Anchor("intra_document").documents(TWO_ROWS, CPU).anchors == ()
    without = torch.tensor([[1, 1, 2], [0, 3, -1]])
    assert Anchor("intra_document").documents(without, CPU).lengths == (2, 1, 1, 1)
    assert Anchor("full").documents(without, CPU).lengths == (3, 2)


def test_anchors_by_default():
    assert Anchor() == Anchor("anchor", False)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([[0, 1, 1], [2, 2, 2], [3, 3, 3]], "row 1 starts with 2; its first token must be the anchor"),
        ([[0, 1, 1], [-1, 0, 2]], "row 1 has its anchor .id 0. outside of column 0"),
        ([[0, 1, 0], [0, 0, 2]], "row 0 has its anchor"),
        ([[0, 1, -2]], "must be 0 .anchor."),
    ],
)
def test_the_row_that_lacks_its_anchor_is_named(ids, said):
    with pytest.raises(SurgeryError, match=said):
        Anchor().documents(torch.tensor(ids), CPU)
