"""Linking foreign checkpoints: only what one history proves is linked, in whatever order links come."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.ledger.linking import Link, chain, follow
from protocols.ledger.merkle import EMPTY_ROOT, consistency_path
from tests.protocols.forms import Tree

SIZE = 40
HONEST = Tree([b"honest %d" % i for i in range(SIZE)])


def forked(at: int) -> Tree:
    """A second history that agrees with HONEST on its first `at` entries."""
    return Tree([b"honest %d" % i if i < at else b"forked %d" % i for i in range(SIZE)])


def link(tree: Tree, old: int, new: int) -> Link:
    return Link(old=old, new=new, path=tuple(consistency_path(old, new, tree.node)))


def roots(tree: Tree, *sizes: int) -> dict[int, bytes]:
    return {0: EMPTY_ROOT} | {size: tree.root(size) for size in sizes}


def test_a_chain_links_every_size_in_it() -> None:
    links = [link(HONEST, old, new) for old, new in ((0, 5), (5, 8), (8, 20))]
    assert follow(0, roots(HONEST, 5, 8, 20), links) == ([5, 8, 20], [])


def test_a_chain_starts_at_the_newest_linked_size_only() -> None:
    links = [link(HONEST, 8, 20)]
    assert follow(5, roots(HONEST, 5, 8, 20), links) == ([], [])
    assert follow(8, roots(HONEST, 8, 20), links) == ([20], [])


def test_an_older_unlinked_size_is_linked_backwards() -> None:
    links = [link(HONEST, 3, 8), link(HONEST, 8, 20)]
    assert follow(8, roots(HONEST, 3, 8, 20), links) == ([3, 20], [])
    assert follow(20, roots(HONEST, 3, 8, 20), links) == ([3, 8], [])


def test_the_empty_tree_is_no_shortcut_past_what_is_linked() -> None:
    fork = forked(2)
    held = {0: EMPTY_ROOT, 5: HONEST.root(5), 9: fork.root(9), 3: fork.root(3)}
    assert follow(5, held, [link(fork, 0, 9), link(fork, 0, 3), link(fork, 3, 9)]) == ([], [])


def test_a_fork_does_not_come_in_through_an_older_linked_size() -> None:
    fork = forked(4)
    held = {0: EMPTY_ROOT, 3: HONEST.root(3), 10: HONEST.root(10), 20: fork.root(20)}
    assert follow(10, held, [link(fork, 3, 20)]) == ([], [])  # 3 is where both histories still agree


def test_a_fork_is_not_linked_backwards_either() -> None:
    fork = forked(4)
    held = {0: EMPTY_ROOT, 7: fork.root(7), 10: HONEST.root(10)}
    for bad in (link(fork, 7, 10), link(HONEST, 7, 10)):
        assert follow(10, held, [bad]) == ([], [bad])


def test_of_two_futures_of_the_newest_linked_size_one_is_linked_at_most() -> None:
    fork = forked(10)
    held = {0: EMPTY_ROOT, 10: HONEST.root(10), 15: fork.root(15), 20: HONEST.root(20)}
    for links in permutations([link(fork, 10, 15), link(HONEST, 10, 20), link(HONEST, 15, 20)]):
        linked, _ = follow(10, held, links)
        assert linked == [15]  # the same, whatever the order; 20 stays unlinked and alarms


def test_a_failing_link_is_told_and_links_nothing() -> None:
    bad = Link(old=5, new=8, path=(bytes(32),))
    assert follow(5, roots(HONEST, 5, 8, 20), [bad, link(HONEST, 8, 20)]) == ([], [bad])


def test_a_failing_link_beside_a_good_one_is_told_in_any_order() -> None:
    bad, good = Link(old=5, new=8, path=(bytes(32),)), link(HONEST, 5, 8)
    for links in ([bad, good], [good, bad]):
        assert follow(5, roots(HONEST, 5, 8), links) == ([8], [bad])


@pytest.mark.parametrize("sizes", [(5, 5), (8, 5), (5, 99), (99, 5), (-1, 5), (0, 0)])
def test_a_link_between_sizes_that_lead_nowhere_is_nothing(sizes: tuple[int, int]) -> None:
    assert follow(5, roots(HONEST, 5, 8), [Link(old=sizes[0], new=sizes[1], path=())]) == ([], [])


@given(st.lists(st.integers(-3, SIZE + 3), max_size=18), st.integers(1, SIZE))
def test_the_chain_that_we_send_links_all_that_was_named_at_the_peer(named: list[int], size: int) -> None:
    steps = chain(named, size)
    links = [link(HONEST, old, new) for old, new in steps]
    below = sorted({each for each in named if 0 <= each < size})
    assert steps == list(zip([*below, size], [*below, size][1:], strict=False))
    positive = [each for each in below if each]
    held = roots(HONEST, *positive, size)
    for linked in below:  # whichever of the named sizes was the newest linked one
        found, failing = follow(linked, held, links)
        assert not failing
        assert set(found) == {*positive, size} - {linked}


def test_a_chain_without_named_sizes_is_empty() -> None:
    assert chain([], 9) == chain([9, 12], 9) == chain([0], 0) == []


@st.composite
def worlds(draw: st.DrawFn) -> tuple[int, dict[int, bytes], Tree, list[Link]]:
    """What a node holds of a ledger with two histories, and the links that any liar could send.

    Returns the newest linked size (of the honest history), roots held, the other history, links.
    """
    fork = forked(draw(st.integers(0, SIZE - 1)))
    linked = draw(st.integers(0, SIZE))
    held = {0: EMPTY_ROOT, linked: HONEST.root(linked)}
    for size in draw(st.lists(st.integers(1, SIZE), unique=True, min_size=1, max_size=7)):
        held.setdefault(size, draw(st.sampled_from([HONEST, fork])).root(size))
    ends = st.tuples(st.sampled_from(sorted(held)), st.sampled_from(sorted(held)))
    tree = st.sampled_from([HONEST, fork])
    links = [link(draw(tree), min(pair), max(pair)) for pair in draw(st.lists(ends, max_size=16))]
    return linked, held, fork, links


@given(worlds(), st.randoms(use_true_random=False))
@settings(max_examples=5 * settings().max_examples)
def test_whatever_links_come_all_that_is_linked_is_one_history_with_what_was_linked_before(world, random) -> None:
    linked, held, fork, links = world
    found, failing = follow(linked, held, links)
    assert any(all(held[size] == tree.root(size) for size in [linked, *found]) for tree in (HONEST, fork))
    assert not {0, linked} & set(found)
    assert found == sorted(set(found))
    again = list(links)
    random.shuffle(again)
    assert follow(linked, held, again) == (found, failing)


@given(worlds())
def test_links_of_the_honest_history_are_never_called_failing(world) -> None:
    linked, held, _, links = world
    honest = [each for each in links if all(held[at] == HONEST.root(at) for at in (each.old, each.new))]
    honest = [link(HONEST, each.old, each.new) for each in honest]
    assert not follow(linked, held, honest)[1]
