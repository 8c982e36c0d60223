"""What gpucheck raises about itself or its input; never about a cluster.

GpucheckError               exit status 3: gpucheck could not do its work
└── UsageError              exit status 2: the user's input is wrong; the message says what, where, what to do
    ├── BundleError         a bundle, or an archive to import, cannot be read
    ├── ScenarioError       a scenario cannot be built
    └── CheckDefinitionError a check (the suite's or a user's) is declared wrongly
"""


class GpucheckError(Exception):
    """Gpucheck could not do its work."""


class UsageError(GpucheckError):
    """The user's input is wrong."""


class BundleError(UsageError):
    """A bundle, or an archive to import, cannot be read."""


class ScenarioError(UsageError):
    """A scenario cannot be built."""


class CheckDefinitionError(UsageError):
    """A check is declared wrongly."""
