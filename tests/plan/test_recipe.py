import pytest

from weitiao.errors import RecipeError
from weitiao.plan.recipe import Recipe, load_recipe, override_value, shelf
from weitiao.words import set_language


@pytest.fixture(autouse=True)
def _english():
    set_language("en")


@pytest.mark.parametrize("name", sorted(shelf()))
def test_every_shipped_recipe_loads(name):
    assert load_recipe(name).description


def test_the_shelf():
    assert set(shelf()) == {"default", "bank", "poems"}
    assert load_recipe("bank").data.group_by == "phrasing"
    assert load_recipe() == load_recipe("default")
    assert load_recipe().model_copy(update={"description": None}) == Recipe()


def test_overrides():
    recipe = load_recipe(
        None,
        [
            "train.learning_rate=1e-4",
            "epochs=3",
            "rank=8",
            "targets=[q_proj, v_proj]",
            "system=你是助手: 简短回答 #1",
            "columns={prompt: ask, response: answer}",
            "model.name=Qwen2.5-1.5B-Instruct",
            "gradient_checkpointing=true",
            "max_new_tokens=",
        ],
    )
    assert recipe.train.learning_rate == 1e-4
    assert recipe.train.epochs == 3
    assert recipe.train.lora.rank == 8
    assert recipe.train.lora.targets == ["q_proj", "v_proj"]
    assert recipe.data.system == "你是助手: 简短回答 #1"
    assert recipe.data.columns == {"prompt": "ask", "response": "answer"}
    assert recipe.model.name == "Qwen2.5-1.5B-Instruct"
    assert recipe.train.gradient_checkpointing == "full"
    assert recipe.evaluate.max_new_tokens is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "train.lora.alpah=3",
            "train.lora.alpah=3 train.lora.alpah: unknown key, did you mean alpha?",
        ),
        ("epohcs=3", "did you mean train.epochs?"),
        ("epochs=three", 'epochs=three train.epochs: expected a whole number, not "three".'),
        ("seed=1", "data.seed, train.seed, evaluate.seed"),
        ("epochs", "key=value"),
        ("=3", "key=value"),
        ("train=3", "train=3 train: expected keys"),
        ("train.epochs.x=3", "train.epochs"),
    ],
)
def test_wrong_overrides(override, expected):
    with pytest.raises(RecipeError) as caught:
        load_recipe(None, [override])
    assert expected in str(caught.value)


def test_file_and_override_problems_are_told_together(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("train:\n  epochs: 0\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path), ["bacth_size=2", "seed=1", "x"])
    assert len(str(caught.value).splitlines()) == 4
    assert f"{path}:2:11 train.epochs" in str(caught.value)


def test_an_override_wins_over_the_file(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("train:\n  epochs: 7\nevaluate:\ndata:\n  # all commented out\n")
    assert load_recipe(str(path)).train.epochs == 7
    assert load_recipe(str(path), ["epochs=2"]).train.epochs == 2


def test_unknown_names():
    with pytest.raises(RecipeError, match="did you mean poems"):
        load_recipe("peoms")
    with pytest.raises(RecipeError, match="bank, default, poems"):
        load_recipe("xyz")
    with pytest.raises(RecipeError, match=r"no recipe file nowhere\.yaml"):
        load_recipe("nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-4", 2e-4),
        ("3", 3),
        ("true", True),
        ("no", "no"),
        ("'3'", "3"),
        ("[a, b]", ["a", "b"]),
        ("a: b", "a: b"),
        ("a #b", "a #b"),
        ("[broken", "[broken"),
        ("*", "*"),
        ("", None),
    ],
)
def test_override_values(text, value):
    assert override_value(text) == value


def test_every_option_has_its_help():
    def undocumented(kind):
        for name, info in kind.model_fields.items():
            group = info.annotation
            if isinstance(group, type) and hasattr(group, "model_fields"):
                yield from undocumented(group)
            if not info.description:
                yield f"{kind.__name__}.{name}"

    assert list(undocumented(Recipe)) == []


def test_a_mapping_of_numbers_needs_no_blanks() -> None:
    weights = load_recipe(None, ["balance.weights={甲:2,乙: 1.5}"]).data.balance.weights
    assert weights == {"甲": 2, "乙": 1.5}


def test_the_end_of_a_path_is_enough_where_it_is_clear() -> None:
    recipe = load_recipe(None, ["balance.by=kind", "clean.width=convert", "review.required=true"])
    assert recipe.data.balance.by == "kind"
    assert recipe.data.clean.width == "convert"
    assert recipe.data.review.required
