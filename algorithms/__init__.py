"""The techniques, one in each file of this folder and of those within it.

`REGISTRY` maps a technique's name in recipes, which is its file's name, to its class. The names in the
`__all__` of each file can be imported from here. `python -m cadenza.algorithms` prints the techniques.
"""

import pkgutil
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import composer.algorithms
from composer.core import Algorithm

REGISTRY: dict[str, type[Algorithm]] = {}
__all__ = ["REGISTRY"]

_files = [file.name for file in pkgutil.walk_packages(__path__, f"{__name__}.") if not file.ispkg]
_paths = {path.rpartition(".")[2]: path for path in _files if not path.endswith("__main__")}
for _file, _path in sorted(_paths.items()):
    _module = import_module(_path)
    for _name in _module.__all__:
        globals()[_name] = _found = getattr(_module, _name)
        __all__ += [_name]
        if isinstance(_found, type) and issubclass(_found, Algorithm):
            REGISTRY[_file] = _found

_CLASSES = {cls.__name__: cls for cls in REGISTRY.values()}


def _find(earlier: Any, name: str) -> Any:
    """The technique `name`, for `composer.algorithms`; `earlier` is what answers to other names there."""
    if name in _CLASSES:
        return _CLASSES[name]
    if earlier is not None:
        return earlier(name)
    raise AttributeError(f"module 'composer.algorithms' has no attribute {name!r}")


# If a resume leaves out an algorithm of the checkpoint, Composer looks it up here by its class name. The
# module answers to the name, but doesn't list it: what goes through Composer's algorithms finds those alone.
for _name, _cls in _CLASSES.items():
    if vars(composer.algorithms).get(_name, _cls) is not _cls:
        raise ImportError(f"composer.algorithms has another {_name}; a resume would create that one")
_others: Any = vars(composer.algorithms).get("__getattr__")
_others = _others.args[0] if isinstance(_others, partial) and _others.func.__module__ == __name__ else _others
composer.algorithms.__getattr__ = partial(_find, _others)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
