"""What a user can put right, as sentences: commands print them without a traceback."""

import errno


class UserError(Exception):
    """Bad input: the message names the file, the key or the value, and says what to do."""


class Interrupted(UserError):  # noqa: N818 - not an error of anybody's
    """Work that something from outside ended: nothing is to be put right, the same command goes on."""


# What to do about what the system refuses.
ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and give the same command again, which goes on",
    errno.EDQUOT: "your quota is used up; free some space and give the same command again, which goes on",
    errno.EROFS: "the file system is read-only; work in a folder that can be written",
    errno.EACCES: "permission denied; ask its owner, or work in a folder of your own",
    errno.EPERM: "not permitted; ask its owner, or work in a folder of your own",
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "a folder, where a file is wanted",
    errno.ENOTDIR: "a file stands where a folder is wanted; move it away",
    errno.EEXIST: "a file stands where a folder is wanted; move it away",
    errno.ELOOP: "a link, where a file is wanted; name the file itself",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "too many open files; raise the limit with `ulimit -n`",
    errno.EIO: "the disk does not answer (input/output error); look at its health before anything else",
}


def system_error(error: OSError) -> str:
    """A sentence for what the operating system said: the path, the reason, and what to do."""
    what = ADVICE.get(error.errno or 0, error.strerror or str(error) or type(error).__name__)
    return f"{error.filename}: {what}" if error.filename is not None else what
