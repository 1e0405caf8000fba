"""The techniques, one in each file of this folder.

`REGISTRY` maps a technique's name in recipes, which is its file's name, to its class. The names in the
`__all__` of each file can be imported from here. `python -m cadenza.algorithms` prints the techniques.
"""

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

import composer.algorithms
from composer.core import Algorithm

REGISTRY: dict[str, type[Algorithm]] = {}
__all__ = ["REGISTRY"]

for _file in pkgutil.iter_modules(__path__):
    if _file.name.startswith("_"):
        continue
    _module = import_module(f"{__name__}.{_file.name}")
    for _name in _module.__all__:
        globals()[_name] = _found = getattr(_module, _name)
        __all__ += [_name]
        if isinstance(_found, type) and issubclass(_found, Algorithm):
            REGISTRY[_file.name] = _found

# If a resume leaves out an algorithm of the checkpoint, Composer looks it up here by its class name.
for _cls in REGISTRY.values():
    if getattr(composer.algorithms, _cls.__name__, _cls) is not _cls:
        raise ImportError(f"composer.algorithms has another {_cls.__name__}; a resume would create that one")
    setattr(composer.algorithms, _cls.__name__, _cls)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
