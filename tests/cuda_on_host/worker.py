"""The process that runs the kernels, with the sanitizer's runtime loaded before Python.

Called with the path of a compiled module, it reads pickled (seed, choice of kernels, whether to count bank conflicts,
function, arguments) and answers each with (error or None, the bytes of the arguments that are arrays, names of the
kernels that were launched, races, bank conflicts); a tuple stands for an array. The choice is the value of CHOICE in
the environment, or None.
"""

import importlib.util
import os
import pickle
import sys

CHOICE = "ADAFOCUS_CUDA_KERNEL"


def load(path: str):
    spec = importlib.util.spec_from_file_location("cuda_on_host", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(path: str) -> None:
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed belongs to the report
    module = load(path)
    while True:
        try:
            seed, choice, count_conflicts, function, arguments = pickle.load(requests)
        except EOFError:
            return
        values = [module.Array(*value) if isinstance(value, tuple) else value for value in arguments]
        error = None
        os.environ.pop(CHOICE, None)
        if choice is not None:
            os.environ[CHOICE] = choice
        module.begin_call(seed, count_conflicts)
        try:
            getattr(module, function)(*values)
        except RuntimeError as raised:
            error = str(raised)
        arrays = [value.bytes() for value in values if isinstance(value, module.Array)]
        found = module.found_races(), module.bank_conflicts()
        pickle.dump((error, arrays, module.launched(), *found), replies)
        replies.flush()


if __name__ == "__main__":
    main(sys.argv[1])
