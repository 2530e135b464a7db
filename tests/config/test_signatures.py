"""What the configuration reads from a method's file is what Python finds in the class itself."""

import importlib
import inspect

import pytest

from selftrans.config import signatures
from selftrans.config.signatures import Epochs, Layer, Number, method_names, signature
from selftrans.errors import UserError


def method_class(name):
    from selftrans.methods.method import Method

    module = importlib.import_module(f"selftrans.methods.{name}")
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Method)]
    (kind,) = [kind for kind in found if kind.__module__ == module.__name__]
    return kind


def test_every_method_of_the_paper_is_known():
    assert {"vae_align", "self_transcendence", "repa", "dispersive", "layersync", "sra"} <= set(method_names())
    assert not {"method", "projector", "window", "__init__"} & set(method_names())


@pytest.mark.parametrize("name", method_names())
def test_the_syntax_tree_says_what_the_class_says(name):
    kind, found = method_class(name), signature(name)
    parameters = inspect.signature(kind.__init__).parameters.values()
    settings = {item.name: item.default for item in parameters if item.kind is inspect.Parameter.KEYWORD_ONLY}
    defaults = {key: default for key, (_, default) in found.settings.items()}
    assert defaults == {key: ... if value is inspect.Parameter.empty else value for key, value in settings.items()}
    assert (found.needs_teacher, found.needs_images) == (kind.needs_teacher, kind.needs_images)


@pytest.mark.parametrize("name", method_names())
def test_a_method_that_needs_a_teacher_names_the_layer_that_guides(name):
    """The plan cuts the teacher off after ``guiding_layer``."""
    assert not signature(name).needs_teacher or signature(name).settings["guiding_layer"][0] is Layer


def test_layers_and_epochs_are_told_from_numbers():
    assert signature("sra").settings["fade_after"] == (Epochs, ...)
    assert signature("layersync").settings["pairs"] == (tuple[tuple[Layer, Layer], ...], ...)
    assert signature("self_transcendence").settings["guided_layer"] == (Layer, ...)
    assert signature("self_transcendence").settings["guidance_scale"] == (Number, ...)


def test_an_unknown_method_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match=r"no method is called 'magic'; allowed: .*repa, self_transcendence"):
        signature("magic")


NEW = """
from selftrans.methods.method import Method
from torch import Tensor

class Magic(Method):
    needs_images = True

    def __init__(self, context, *, layer: Layer, blocks: tuple[int, ...] = (1, 2), strength: {kind} = 2.0):
        raise RuntimeError("never run")
"""


@pytest.fixture
def methods_folder(tmp_path, monkeypatch):
    """A folder of methods of one's own; what was read of another folder is forgotten, before and after."""
    monkeypatch.setattr(signatures, "METHODS_FOLDER", tmp_path)
    for read in (signature, method_names):
        read.cache_clear()
    yield tmp_path
    for read in (signature, method_names):
        read.cache_clear()


def test_a_new_method_is_one_file_and_one_row(methods_folder, configuration):
    (methods_folder / "magic.py").write_text(NEW.format(kind="Positive"))
    method = {"name": "magic", "layer": "n/2", "blocks": [3]}
    configuration.rows = {
        "plain": configuration.rows["plain"],
        "new": {"like": "plain", "weight": 1, "method": method},
    }
    configuration.tables = {}
    run = configuration.plan().run("new", 0)
    assert run.row.method == {"name": "magic", "layer": 3, "blocks": (3,), "strength": 2.0}
    assert run.needs_images

    method["strength"] = -1
    with pytest.raises(UserError, match=r"new\.method\.strength: found -1; allowed: greater than 0"):
        configuration.plan()


def test_a_new_setting_with_a_default_renames_no_run(methods_folder, configuration):
    path = methods_folder / "magic.py"
    path.write_text(NEW.format(kind="float"))
    configuration.rows = {"new": {**configuration.rows["plain"], "weight": 1, "method": {"name": "magic", "layer": 2}}}
    configuration.tables = {}
    before = configuration.plan().run("new", 0).id
    path.write_text(path.read_text().replace("= 2.0)", "= 2.0, newer: bool = False)"))
    signature.cache_clear()
    run = configuration.plan().run("new", 0)
    assert run.row.method["newer"] is False
    assert run.id == before


def test_a_setting_of_unknown_type_is_refused(methods_folder):
    (methods_folder / "magic.py").write_text(NEW.format(kind="Tensor"))
    with pytest.raises(UserError, match=r"magic\.py: strength: found Tensor; allowed: types made of .*float"):
        signature("magic")


def test_a_setting_without_type_is_refused(methods_folder):
    (methods_folder / "magic.py").write_text(NEW.replace(": {kind}", ""))
    with pytest.raises(UserError, match=r"magic\.py: strength: no type; allowed: .*float"):
        signature("magic")
