"""Why an object cannot become a program."""


class LinkError(Exception):
    """The object cannot become a program."""


class NotAnObject(LinkError):
    """The input is no relocatable object for BPF."""


class WritableData(LinkError):
    """A global variable: a program has none, its memory is the stack and the heap of one instruction."""


class UnknownRelocation(LinkError):
    """The compiler asks for an address in a way that this linker does not know."""


class UndefinedSymbol(LinkError):
    """Something is called or used that is neither in the object nor a system call."""


class EntryPointMissing(LinkError):
    """There is no function for the runtime to call."""
