"""Films and actions of two codings are matched, and what differs between them is named."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.agreement.helpers import make_coding, make_film
from vimoclip.agreement.coding import Coding, CodingPair, FilmCoding
from vimoclip.agreement.pairing import SpanName, pair_codings
from vimoclip.errors import UserError

ONE, TWO = Path("one.boris"), Path("two.boris")
WALK = {"walk": [(1.0, 2.0)]}


def pair(
    coded: Sequence[FilmCoding] | Coding,
    predicted: Sequence[FilmCoding] | Coding,
    renamed: dict[str, str] | None = None,
    actions: Sequence[str] = (),
    span: SpanName = "film",
) -> CodingPair:
    codings = [
        side if isinstance(side, Coding) else make_coding(*side, path=path)
        for side, path in ((coded, ONE), (predicted, TWO))
    ]
    return pair_codings(codings[0], codings[1], renamed or {}, actions, span)


def mentions(paired: CodingPair, *words: str) -> bool:
    """Whether one note has all the words."""
    return any(all(word in note for word in words) for note in paired.notes)


def matched(paired: CodingPair) -> list[tuple[str, str, str]]:
    return [(film.name, film.coded.written_path, film.predicted.written_path) for film in paired.films]


# --- films


@pytest.mark.parametrize(
    ("coded", "predicted"),
    [
        ("a.mp4", "a.mp4"),
        ("C:\\Films\\Day 1\\A.MP4", "/media/day2/a.mp4"),
        ("films/Caf\u00e9.mp4", "file:///home/ann/Cafe\u0301.mp4"),
    ],
)
def test_films_are_matched_by_file_name(coded: str, predicted: str) -> None:
    paired = pair([make_film(WALK, coded)], [make_film({"walk": [(1.0, 3.0)]}, predicted)])
    assert [film[1:] for film in matched(paired)] == [(coded, predicted)]
    assert not paired.notes


def test_films_of_one_name_are_matched_by_their_folders() -> None:
    first = [make_film(WALK, f"C:\\data\\{day}\\a.mp4") for day in ("Day1", "day2", "day3")]
    second = [make_film(WALK, f"/home/films/{day}/a.mp4") for day in ("day2", "day1", "day4")]
    paired = pair(first, second)
    assert matched(paired) == [
        ("Day1/a.mp4", "C:\\data\\Day1\\a.mp4", "/home/films/day1/a.mp4"),
        ("day2/a.mp4", "C:\\data\\day2\\a.mp4", "/home/films/day2/a.mp4"),
    ]
    assert mentions(paired, "only one.boris", "1 of 3") and mentions(paired, "only two.boris", "1 of 3")


def test_many_films_of_one_name() -> None:
    """As of cameras, whose numbers start again for each memory card. Comparing all pairs of pairs would take hours."""
    names = [f"card{number}/a.mp4" for number in range(300)]
    paired = pair([make_film(WALK, f"C:/x/{name}") for name in names], [make_film(WALK, name) for name in names])
    assert [film.name for film in paired.films] == names


def test_path_that_is_the_end_of_another_is_matched() -> None:
    first = [make_film(WALK, "a.mp4"), make_film(WALK, "day1/a.mp4")]
    second = [make_film(WALK, "x/day1/a.mp4"), make_film(WALK, "x/a.mp4")]
    assert sorted(film[1:] for film in matched(pair(first, second))) == [
        ("a.mp4", "x/a.mp4"),
        ("day1/a.mp4", "x/day1/a.mp4"),
    ]


@pytest.mark.parametrize(
    ("coded", "predicted"),
    [
        (["day1/a.mp4", "day2/a.mp4"], ["a.mp4"]),
        (["day1/a.mp4", "day2/a.mp4"], ["ann/a.mp4", "bob/a.mp4"]),
        (["ann/day1/a.mp4", "bob/day1/a.mp4"], ["cy/day1/a.mp4"]),
        (["a.mp4", "a.mp4"], ["a.mp4", "a.mp4"]),
    ],
)
def test_ambiguous_films_are_refused(coded: list[str], predicted: list[str]) -> None:
    with pytest.raises(UserError, match=predicted[0]):
        pair([make_film(WALK, name) for name in coded], [make_film(WALK, name) for name in predicted])


def test_films_with_another_extension_are_matched_and_named() -> None:
    first = [make_film(WALK, name) for name in ("a.mts", "b.mts", "c.mp4")]
    second = [make_film(WALK, name) for name in ("a.mp4", "b.mp4", "b.mkv", "c.mp4")]
    paired = pair(first, second)
    assert {film[1:] for film in matched(paired)} == {("a.mts", "a.mp4"), ("c.mp4", "c.mp4")}
    assert mentions(paired, "a.mts", "a.mp4", "extension")
    assert mentions(paired, "only one.boris", "b.mts") and mentions(paired, "only two.boris", "b.mp4, b.mkv")


def test_codings_without_a_common_film_are_refused() -> None:
    with pytest.raises(UserError, match=r"a\.mp4.*b\.mp4"):
        pair([make_film(WALK, "a.mp4")], [make_film(WALK, "b.mp4")])


@pytest.mark.parametrize("is_complete", [True, False])
def test_films_that_a_table_cannot_name(is_complete: bool) -> None:
    """A table has no row of a film without an event, so it is not compared, even if it was coded."""
    films = [make_film(WALK, "a.mp4"), make_film(WALK, "b.mp4")]
    table = make_coding(films[0], path=ONE, is_complete=is_complete)
    assert mentions(pair(table, films), "one.boris", "table") != is_complete
    assert not mentions(pair(table, films[:1]), "one.boris", "table")


# --- actions


def test_renamed_actions_are_joined() -> None:
    first = make_film(
        {"Walking": [(1.0, 2.0)], "running": [(0.5, 4.0), (6.0, 7.0)]}, points={"running": (5.0,), "Walking": (4.5,)}
    )
    second = make_film({"walk": [(1.0, 3.0)]}, unknown={"walk": ((8.0, float("inf")),)})
    paired = pair([first], [second], {"walking": "walk", "running": "walk"})
    assert paired.actions == ("walk",)
    assert paired.films[0].coded.bouts == {"walk": ((0.5, 4.0), (6.0, 7.0))}
    assert paired.films[0].coded.points == {"walk": (4.5, 5.0)}
    assert paired.films[0].predicted.unknown == {"walk": ((8.0, 10.0),)}  # up to the film's end
    assert not paired.notes


def test_names_can_be_exchanged() -> None:
    first = make_film({"walk": [(1.0, 2.0)], "rest": [(3.0, 4.0)]})
    paired = pair([first], [first], {"walk": "rest", "rest": "walk"})
    assert paired.films[0].coded.bouts == {"rest": ((1.0, 2.0),), "walk": ((3.0, 4.0),)}


def test_names_that_differ_in_case_or_spaces_are_one_and_named() -> None:
    first, second = make_film({"walk slowly": [(1.0, 2.0)]}), make_film({" Walk  slowly": [(1.0, 3.0)]})
    paired = pair([first], [second])
    assert paired.actions == ("walk slowly",)
    assert paired.films[0].predicted.bouts == {"walk slowly": ((1.0, 3.0),)}
    assert mentions(paired, "'walk slowly'", "' Walk  slowly'")


@pytest.mark.parametrize("is_complete", [True, False])
def test_actions_of_one_coding_only(is_complete: bool) -> None:
    """A complete coding does not know them, another one may just never have had them."""
    first = make_coding(make_film({"walk": [(1.0, 2.0)], "grooming": [(2.0, 3.0), (4.0, 5.0)]}), path=ONE)
    second = make_coding(make_film({"walk": [(1.0, 2.5)]}), path=TWO, is_complete=is_complete)
    paired = pair(first, second)
    assert paired.actions == (("walk",) if is_complete else ("walk", "grooming"))
    assert ("grooming" in paired.films[0].coded.bouts) != is_complete
    assert mentions(
        paired, "only one.boris", "grooming (events: 2)", "left out" if is_complete else "absent in two.boris"
    )


def test_similar_names_are_suggested() -> None:
    first, second = make_film({"walking": [(1.0, 2.0)], "rest": []}), make_film({"walkin": [(1.0, 2.0)], "rest": []})
    assert mentions(pair([first], [second]), '--map "walking=walkin"')
    assert not mentions(pair([first], [second], {"walkin": "walking"}), "--map")


def test_chosen_actions() -> None:
    film = make_film({"walk": [(1.0, 2.0)], "rest": [(2.0, 3.0)], "fly": [(3.0, 4.0)]})
    assert pair([film], [film], actions=["Fly", "walk"]).actions == ("walk", "fly")
    with pytest.raises(UserError, match=r"'wlk'.*'walk'"):
        pair([film], [film], actions=["wlk"])
    with pytest.raises(UserError, match=r"two\.boris.*'fly'"):
        pair([film], [make_film(WALK)], actions=["fly", "walk"])
    table = make_coding(make_film(WALK), is_complete=False)
    assert pair([film], table, actions=["fly"]).actions == ("fly",)


def test_unknown_renamed_action_is_refused_with_similar_names() -> None:
    with pytest.raises(UserError, match=r"'wlk'.*'walk'"):
        pair([make_film(WALK)], [make_film(WALK)], {"wlk": "walk"})


@pytest.mark.parametrize("is_complete", [True, False])
def test_codings_without_a_common_action_are_refused(is_complete: bool) -> None:
    second = make_coding(make_film({"sit": [(1.0, 2.0)]}), is_complete=is_complete)
    with pytest.raises(UserError, match=r"'walk'.*'sit'.*--map"):
        pair([make_film(WALK)], second)


# --- time


def test_time_that_both_cover_is_compared() -> None:
    first = make_film(WALK, covered=((0.0, 3.0), (5.0, float("inf"))))
    second = make_film(WALK, seconds=9.75, covered=((2.0, 6.0), (8.0, 9.75)))
    (film,) = pair([first], [second]).films
    assert (film.seconds, film.compared) == (9.75, ((2.0, 3.0), (5.0, 6.0), (8.0, 9.75)))


def test_events_span_is_from_the_first_to_the_last_event_of_the_compared_actions() -> None:
    """An event after the end of the film is in it, as in BORIS."""
    first = make_film({"walk": [(2.0, 3.0)], "rest": [(0.0, 10.0)]}, points={"walk": (1.5,)})
    second = make_film({"walk": [(2.5, 10.25)]})
    (film,) = pair([first], [second], span="events").films
    assert film.compared == ((1.5, 10.25),)
    (film,) = pair([make_film(WALK, covered=((0.0, 4.0),))], [second], span="events").films
    assert film.compared == ((1.0, 4.0),)


def test_films_without_compared_time_are_left_out_and_named() -> None:
    first = [make_film(WALK, "a.mp4"), make_film({}, "b.mp4"), make_film(WALK, "c.mp4", covered=((0.0, 2.0),))]
    second = [make_film(WALK, "a.mp4"), make_film({}, "b.mp4"), make_film(WALK, "c.mp4", covered=((2.0, 9.0),))]
    by_events, by_film = (pair(first, second, span=span) for span in ("events", "film"))
    assert [film.name for film in by_events.films] == ["a.mp4"]
    assert mentions(by_events, "b.mp4, c.mp4")
    assert [film.name for film in by_film.films] == ["a.mp4", "b.mp4"]
    with pytest.raises(UserError):
        pair(first[1:2], second[1:2], actions=["walk"], span="events")
    with pytest.raises(UserError):
        pair(first[2:], second[2:])


def test_other_lengths_are_named() -> None:
    lengths = {"a.mp4": (10.0, 10.5), "b.mp4": (10.0, 12.0), "c.mp4": (None, 8.0)}
    first, second = ([make_film(WALK, name, both[i]) for name, both in lengths.items()] for i in (0, 1))
    paired = pair(first, second)
    assert [film.seconds for film in paired.films] == [10.0, 10.0, 8.0]
    assert mentions(paired, "b.mp4 (10 s and 12 s)")
    assert not mentions(paired, "a.mp4") and not mentions(paired, "c.mp4")


def test_film_of_unknown_length_ends_with_its_last_event() -> None:
    paired = pair([make_film(WALK, seconds=None)], [make_film({"walk": [(1.0, 7.0)]}, seconds=None)])
    assert (paired.films[0].seconds, paired.films[0].compared) == (7.0, ((0.0, 7.0),))
    assert mentions(paired, "unknown length", "a.mp4")


def test_events_outside_of_the_film_are_named() -> None:
    inside = make_film({"walk": [(-0.25, 1.0), (9.0, 10.25)]}, "in.mp4")
    outside = make_film({"walk": [(-2.0, 1.0), (3.0, 4.0), (10.25, 10.5)]}, "out.mp4", points={"walk": (-0.25,)})
    others = [make_film(WALK, "in.mp4"), make_film(WALK, "out.mp4")]
    paired = pair([inside, outside], others)
    assert mentions(paired, "out.mp4 (3 of 5 events") and not mentions(paired, "in.mp4")


def test_unknown_spans_end_with_the_compared_time() -> None:
    first = make_film(WALK, unknown={"walk": ((4.0, float("inf")),), "rest": ((0.0, 1.0),)})
    (film,) = pair([first], [make_film(WALK, covered=((0.0, 6.0),))]).films
    assert film.coded.unknown == {"walk": ((4.0, 6.0),)}


# --- codings that are suspiciously alike


def test_identical_codings_are_named() -> None:
    films = [make_film(WALK, "a.mp4"), make_film({}, "b.mp4", points={"walk": (3.0,)})]
    assert mentions(pair(films, films), "copy")
    assert not mentions(pair(films, [films[0], make_film({}, "b.mp4", points={"walk": (3.5,)})]), "copy")
    without_events = make_coding(make_film({}), actions=["walk"])
    assert not mentions(pair(without_events, without_events), "copy")


def test_notes_tell_two_codings_of_one_file_apart() -> None:
    first, second = [make_film(WALK, "a.mp4"), make_film(WALK, "b.mp4")], [make_film(WALK, "a.mp4")]
    paired = pair(make_coding(*first, path=ONE), make_coding(*second, path=ONE))
    assert mentions(paired, "CODED", "b.mp4") and not mentions(paired, "PREDICTED", "b.mp4")
