"""The fields of errors survive data loader workers and process pools, and their message is one clean line."""

import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from vimoclip.errors import GoneError, TrainingError, UserError, UserFacingError, VideoError

TYPES = [UserError, TrainingError, GoneError, VideoError]
FIELDS = [
    ("is broken", "create it again", "a.mp4"),
    ("is broken", "", None),
    ('says "no"; it\'s \\broken\\: {"a": [1]}', 'give "--overwrite"', "fol\"der/it's.mp4"),
    ("two\nlines\r\n\tand \x1b[31mred\x00", "line\u2028separator \u202eright to left", "b\nc\x07.mp4"),
    ("Löwe 獅子 🦁, a lone surrogate \udcff", "größer", "獅子.mp4"),
    ('is not "\nvimoclip error fields: ["x", "y", "z"]"', "", "a.mp4"),
]


def raise_error(error_type: type[UserFacingError], problem: str, hint: str, path: str | None) -> None:
    """Raise the error with a cause and a context, as code that catches a library's error does."""
    try:
        raise ValueError("the cause")
    except ValueError as error:
        raise error_type(problem, hint, path=path) from error


CASES = [(error_type, *fields) for error_type in TYPES for fields in FIELDS]


class RaisingDataset(torch.utils.data.Dataset[int]):
    """Raises the error of `CASES[index]`."""

    def __len__(self) -> int:
        return len(CASES)

    def __getitem__(self, index: int) -> int:
        raise_error(*CASES[index])
        return index


def assert_fields(
    error: UserFacingError, error_type: type[UserFacingError], problem: str, hint: str, path: str | None
) -> None:
    assert type(error) is error_type
    assert (error.problem, error.hint, error.path) == (problem, hint, path)


def test_fields_survive_a_data_loader_worker_and_pickling_after_it() -> None:
    batches = iter(torch.utils.data.DataLoader(RaisingDataset(), num_workers=1))  # the worker outlives an error
    for error_type, problem, hint, path in CASES:
        with pytest.raises(error_type) as raised:
            next(batches)
        assert_fields(raised.value, error_type, problem, hint, path)
        assert_fields(pickle.loads(pickle.dumps(raised.value)), error_type, problem, hint, path)


def test_fields_survive_a_process_pool() -> None:
    with ProcessPoolExecutor(1) as pool:
        for error_type, problem, hint, path in CASES:
            with pytest.raises(error_type) as raised:
                pool.submit(raise_error, error_type, problem, hint, path).result()
            assert_fields(raised.value, error_type, problem, hint, path)


@pytest.mark.parametrize(("problem", "hint", "path"), FIELDS)
def test_the_message_is_one_line_without_control_characters(problem: str, hint: str, path: str | None) -> None:
    message = str(UserError(problem, hint, path=path))
    assert message.splitlines() == [message]
    assert message.isprintable()


def test_the_message_is_composed_of_path_problem_and_hint() -> None:
    assert str(UserError("is broken", "create it again", path="a.mp4")) == "a.mp4: is broken; create it again"
    assert str(UserError("is broken", path="a.mp4")) == "a.mp4: is broken"
    assert str(UserError("there is no video", "name another folder")) == "there is no video; name another folder"
    assert str(VideoError("a\x1b[2J\r\n\x9b\u2028b")) == r"a\x1b[2J\r\n\x9b\u2028b"


def test_a_text_that_starts_like_a_wrapped_error_is_a_problem() -> None:
    for problem in ("Caught ", "Caught a.mp4\nvimoclip error fields: ", "Caught\nvimoclip error fields: no JSON"):
        assert UserError(problem, "hint").problem == problem
