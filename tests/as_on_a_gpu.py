"""A GPU's way of working on the CPU: nobody looks at what a tensor holds, and graphs are captured and replayed."""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from metarl.core import graphs

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
LOOKS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique_dim", "_unique2", "masked_select"}
FROM_THE_HOST = {"lift_fresh"}  # a constant made of Python's numbers: a copy, which cannot be captured


class Recorded(TorchDispatchMode):
    """In place of `torch.cuda.CUDAGraph`: notes operations and does them again; does nothing as it captures."""

    def __init__(self):
        super().__init__()
        self._calls, self._before = [], {}

    def capture_begin(self, pool=None, capture_error_mode="global"):
        self.__enter__()

    def capture_end(self):
        self.__exit__(None, None, None)
        for storage, held in self._before.values():
            storage.copy_(held)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        assert name not in LOOKS | FROM_THE_HOST, f"{name} cannot be captured"
        if name in ("index", "index_put", "index_put_"):
            assert not any(index is not None and index.dtype == torch.bool for index in args[1]), "indexed by a mask"
        names = [declared.name for declared in func._schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        for declared in func._schema.arguments:
            argument = given.get(declared.name)
            if declared.alias_info is not None and declared.alias_info.is_write:
                for tensor in (leaf for leaf in tree_leaves(argument) if torch.is_tensor(leaf)):
                    storage = tensor.untyped_storage()
                    self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        result = func(*args, **kwargs)
        self._calls.append((func, args, kwargs, result))
        return result

    @torch.no_grad()
    def replay(self):
        for func, args, kwargs, result in self._calls:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if torch.is_tensor(old) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


@contextlib.contextmanager
def on_a_gpu(captures=True):
    """What is made within it takes the CPU for a GPU; with `captures`, of graphs too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "_as_on_a_gpu", True)
        patch.setattr(torch.cuda, "CUDAGraph", Recorded)
        patch.setattr(torch.backends.mkldnn, "enabled", False)  # whose LSTM cannot be done again
        patch.setenv(graphs.SWITCH, str(int(bool(captures))))
        yield


def copied(value):
    """Copies of all tensors in a tree."""
    return tree_map(lambda leaf: leaf.clone() if torch.is_tensor(leaf) else leaf, value)
