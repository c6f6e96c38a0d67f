"""Layers into one tree that knows where each value came from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dagster_slurm_components.spec.merge import Layer, merge
from dagster_slurm_components.spec.place import KEY, Position


def layer(name: str, data: dict) -> Layer:
    return Layer(name, data, lambda path: Position(name, len(path) + 1, 1))


def merged(*trees: dict) -> dict:
    return merge([layer(str(index), tree) for index, tree in enumerate(trees)]).data


def test_mappings_merge_deep_and_the_rest_replaces():
    assert merged({"a": {"x": 1, "y": [1, 2]}, "b": 1}, {"a": {"y": [3]}, "c": 2}) == {
        "a": {"x": 1, "y": [3]},
        "b": 1,
        "c": 2,
    }
    assert merged({"a": {"x": 1}}, {"a": 5}) == {"a": 5}
    assert merged({"a": 5}, {"a": {"x": 1}}) == {"a": {"x": 1}}
    assert merged({"a": 5}, {"a": None}) == {"a": None}


def test_another_type_replaces_whole_and_a_missing_type_does_not():
    uv = {"type": "uv", "project": "x"}
    assert merged({"e": uv}, {"e": {"type": "current"}}) == {"e": {"type": "current"}}
    assert merged({"e": uv}, {"e": {"type": "uv", "extra": 1}}) == {"e": {**uv, "extra": 1}}
    assert merged({"e": uv}, {"e": {"project": "y"}}) == {"e": {"type": "uv", "project": "y"}}
    assert merged({"e": {"modules": ["gcc"]}}, {"e": uv}) == {"e": {"modules": ["gcc"], **uv}}


def test_exclusive_keys_of_a_lower_layer_go():
    low = {"resources": {"mem": "1G", "nodes": 1}, "payload": "a.py"}
    assert merged(low, {"resources": {"mem_per_cpu": "2G"}, "command": ["x"]}) == {
        "resources": {"nodes": 1, "mem_per_cpu": "2G"},
        "command": ["x"],
    }
    both = {"resources": {"mem": "1G", "mem_per_cpu": "2G"}}
    assert merged(low, both)["resources"] == {"mem": "1G", "nodes": 1, "mem_per_cpu": "2G"}
    assert merged(low, {"resources": {"mem_per_cpu": None}})["resources"]["mem"] == "1G"
    assert merged({"env": {"mem": "1"}}, {"env": {"mem_per_cpu": "2"}})["env"] == {
        "mem": "1",
        "mem_per_cpu": "2",
    }


def test_sources():
    low = layer("low", {"a": {"x": 1, "y": 2}, "l": [1, 2], "gone": {"deep": 1}})
    high = layer("high", {"a": {"y": 3, "z": {}}, "l": [{"k": 1}], "gone": 5})
    result = merge([low, high])
    assert {path: source.name for path, source in result.sources.items()} == {
        ("a", "x"): "low",
        ("a", "y"): "high",
        ("a", "z"): "high",
        ("l",): "high",
        ("gone",): "high",
    }
    assert result.source(("a",)).name == "high"
    assert result.source(("a", "x", KEY)).name == "low"
    assert result.source(("l", 0, "k")).name == "high"
    assert result.position(("a", "x")) == Position("low", 3, 1)
    assert merge([]).position(("a",)) is None


def test_layers_stay_untouched():
    low = {"a": {"x": [1]}}
    result = merge([layer("low", low), layer("high", {"a": {"y": 1}})])
    result.data["a"]["x"].append(2)
    assert low == {"a": {"x": [1]}}


TREES = st.dictionaries(
    st.sampled_from(["type", "payload", "command", "resources", "a"]),
    st.recursive(
        st.integers(0, 3),
        lambda inner: (
            st.dictionaries(st.sampled_from(["type", "a", "mem", "mem_per_cpu"]), inner, max_size=3)
            | st.lists(inner, max_size=2)
        ),
        max_leaves=6,
    ),
    max_size=4,
)


@given(TREES, TREES, TREES)
def test_every_leaf_has_the_origin_that_holds_its_value(low, middle, high):
    layers = [layer("low", low), layer("middle", middle), layer("high", high)]
    result = merge(layers)

    def leaves(value, path=()):
        if isinstance(value, dict) and (value or not path):
            for key, item in value.items():
                yield from leaves(item, (*path, key))
        else:
            yield path, value

    found = dict(leaves(result.data))
    assert set(found) == set(result.sources)
    for path, value in found.items():
        written = result.sources[path].data
        for part in path:
            written = written[part]
        assert written == value


@given(TREES, TREES)
def test_the_highest_layer_always_wins(low, high):
    result = merge([layer("low", low), layer("high", high)])

    def holds(tree, part):
        return all(holds(tree[k], v) if isinstance(v, dict) else tree[k] == v for k, v in part.items())

    assert holds(result.data, high)


@given(TREES)
def test_merging_over_nothing_or_itself_changes_nothing(tree):
    assert merged(tree) == merged({}, tree) == merged(tree, tree) == tree
