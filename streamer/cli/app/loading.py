"""The App that `-A` names: `shop`, `package.module`, `module:name`, `folder/shop.py`.

The module is imported as Python would import it from the current folder, so that agents
have the names that `python shop.py worker` gives them.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType

from streamer.app import App
from streamer.errors import StreamerError

_loading: list[str] = []


class NoSuchApp(StreamerError):
    """What `-A` names is not there, or is no App."""

    remedy = "Name its module: -A shop for shop.py, -A package.module:name for others."


def load_app(spec: str, directory: Path) -> App:
    """The App of that name, found from `directory`."""
    module_name, colon, path = spec.partition(":")
    folder, module_name = _placed(module_name, directory)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    module = _imported(module_name, folder)
    if colon:
        return _named(module, path)
    found = _only_one(module)
    if found is None and _has_submodule(module, "app"):
        # As Faust has it: `-A shop` finds shop/app.py.
        found = _only_one(_imported(f"{module_name}.app", folder))
    if found is None:
        raise NoSuchApp(
            f"There is no App in {module_name} ({getattr(module, '__file__', '?')}).",
            remedy=f"Make one there: app = streamer.App({module_name!r}).",
        )
    return found


def refuse_while_loading(app: App) -> None:
    """`app.main()` at the top of a module would run whenever it is imported."""
    if _loading:
        raise NoSuchApp(
            f"{_loading[-1]} calls app.main() while it is imported.",
            remedy='Put it below `if __name__ == "__main__":`.',
        )


def _placed(name: str, directory: Path) -> tuple[Path, str]:
    """The folder to import from, and the module: a file may be named as well."""
    if not name.endswith(".py"):
        return directory, name
    file = directory / name
    if not file.is_file():
        raise NoSuchApp(f"There is no file {file}.")
    return file.parent, file.stem


def _imported(name: str, folder: Path) -> ModuleType:
    _loading.append(name)
    try:
        return import_module(name)
    except StreamerError:
        raise
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise _no_module(name, folder) from None
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error
    finally:
        _loading.pop()


def _no_module(name: str, folder: Path) -> NoSuchApp:
    modules = [file.stem for file in folder.glob("*.py")]
    near = difflib.get_close_matches(name, modules, n=1, cutoff=0.6)
    return NoSuchApp(
        f"There is no module {name!r} in {folder}, nor is one installed.",
        remedy=f"Did you mean -A {near[0]}?"
        if near
        else "Go to the folder that it is in, or name it as Python imports it: "
        "-A package.module.",
    )


def _broken(name: str, error: Exception) -> NoSuchApp:
    # From the user's code on: how we came there helps nobody.
    trace = error.__traceback__
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace)
    return NoSuchApp(
        f"{name} cannot be imported.\n{''.join(lines).rstrip()}",
        remedy=f"Mend that; `python -c 'import {name}'` shows whether it is done.",
    )


def _is_machinery(file: str) -> bool:
    return file == __file__ or "importlib" in file


def _only_one(module: ModuleType) -> App | None:
    """The module's App: that called `app`, or the only one."""
    if isinstance(found := getattr(module, "app", None), App):
        return found
    by_name = {name: one for name, one in vars(module).items() if isinstance(one, App)}
    if len(set(map(id, by_name.values()))) > 1:
        raise NoSuchApp(
            f"There are several Apps in {module.__name__}: {', '.join(by_name)}.",
            remedy=f"Say which: -A {module.__name__}:{next(iter(by_name))}.",
        )
    return next(iter(by_name.values()), None)


def _named(module: ModuleType, path: str) -> App:
    found: object = module
    for name in path.split("."):
        found = getattr(found, name, None)
    if isinstance(found, App):
        return found
    apps = [name for name, one in vars(module).items() if isinstance(one, App)]
    raise NoSuchApp(
        f"{module.__name__}:{path} is no App."
        if found is not None
        else f"There is no {path!r} in {module.__name__}.",
        remedy=f"Write -A {module.__name__}:{apps[0]}." if apps else None,
    )


def _has_submodule(module: ModuleType, name: str) -> bool:
    if not hasattr(module, "__path__"):
        return False
    return importlib.util.find_spec(f"{module.__name__}.{name}") is not None
