//! The KEK file on disk: read with its owner and permissions checked, locked against other writers, replaced atomically.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use zeroize::Zeroizing;

use crate::error::LocalKmsError;
use crate::format::MAX_FILE_LEN;

/// A key file is one line of text.
const MAX_KEY_FILE_LEN: u64 = 1024;

/// Identifies the file that was read last.
///
/// Keeps it open, so that its inode is not reused and equal numbers mean the same file.
pub(crate) struct Stamp {
    _open: File,
    identity: Identity,
}

#[derive(PartialEq, Eq)]
struct Identity {
    #[cfg(unix)]
    inode: (u64, u64),
    len: u64,
    modified: Option<SystemTime>,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            #[cfg(unix)]
            inode: {
                use std::os::unix::fs::MetadataExt as _;
                (metadata.dev(), metadata.ino())
            },
            len: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

impl Stamp {
    fn new(file: File, metadata: &Metadata) -> Self {
        Self {
            identity: Identity::of(metadata),
            _open: file,
        }
    }

    /// Tells whether the path still refers to this file, with valid owner and permissions.
    pub(crate) fn is_current(&self, path: &Path) -> Result<bool, LocalKmsError> {
        Ok(Identity::of(&look_at(path)?) == self.identity)
    }
}

/// Reads a whole KEK file, if it is a regular file of a permitted owner, and only the owner may access it.
pub(crate) fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, Stamp), LocalKmsError> {
    // Before opening, because opening a pipe would wait for its other end.
    look_at(path)?;
    let mut file = open(path)?;
    let metadata = file.metadata().map_err(LocalKmsError::io("look at", path))?;
    check(path, &metadata)?;
    let bytes = read_bounded(&mut file, &metadata, path, MAX_FILE_LEN)?;
    Ok((bytes, Stamp::new(file, &metadata)))
}

/// Reads a file that holds a key or a passphrase as text.
pub(crate) fn read_key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, LocalKmsError> {
    let key_missing = |path: PathBuf| LocalKmsError::KeyMissing { path };
    let metadata = fs::metadata(path).map_err(|error| missing_or(error, "look at", path, key_missing))?;
    check(path, &metadata)?;
    let mut file = File::open(path).map_err(|error| missing_or(error, "open", path, key_missing))?;
    let metadata = file.metadata().map_err(LocalKmsError::io("look at", path))?;
    check(path, &metadata)?;
    read_bounded(&mut file, &metadata, path, MAX_KEY_FILE_LEN)
}

fn open(path: &Path) -> Result<File, LocalKmsError> {
    File::open(path).map_err(|error| missing_or(error, "open", path, kek_file_missing))
}

/// Checks what a path refers to, without following a symbolic link.
fn look_at(path: &Path) -> Result<Metadata, LocalKmsError> {
    let metadata =
        fs::symlink_metadata(path).map_err(|error| missing_or(error, "look at", path, kek_file_missing))?;
    check(path, &metadata)?;
    Ok(metadata)
}

fn kek_file_missing(path: PathBuf) -> LocalKmsError {
    LocalKmsError::Missing { path }
}

fn missing_or(
    error: io::Error,
    action: &'static str,
    path: &Path,
    missing: impl FnOnce(PathBuf) -> LocalKmsError,
) -> LocalKmsError {
    match error.kind() {
        io::ErrorKind::NotFound => missing(path.to_path_buf()),
        _ => LocalKmsError::io(action, path)(error),
    }
}

fn check(path: &Path, metadata: &Metadata) -> Result<(), LocalKmsError> {
    if !metadata.is_file() {
        return Err(LocalKmsError::NotAFile {
            path: path.to_path_buf(),
        });
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if !owner_ok(owner, user) {
            return Err(LocalKmsError::Owner {
                path: path.to_path_buf(),
                owner,
                user,
            });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(LocalKmsError::Permissions {
                path: path.to_path_buf(),
                mode,
            });
        }
    }
    Ok(())
}

/// Tells whether a file may have this owner. Root can do everything anyway, and mounts secrets for others.
#[cfg(unix)]
fn owner_ok(owner: u32, user: u32) -> bool {
    owner == user || owner == 0
}

fn read_bounded(
    file: &mut File,
    metadata: &Metadata,
    path: &Path,
    max: u64,
) -> Result<Zeroizing<Vec<u8>>, LocalKmsError> {
    let too_large = || LocalKmsError::TooLarge {
        path: path.to_path_buf(),
        max,
    };
    if metadata.len() > max {
        return Err(too_large());
    }
    let capacity = usize::try_from(metadata.len()).map_err(|_| too_large())?;
    // One more than its length, so that reading finds the end without reallocating.
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity + 1));
    file.take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(LocalKmsError::io("read", path))?;
    match u64::try_from(bytes.len()) {
        Ok(len) if len <= max => Ok(bytes),
        _ => Err(too_large()),
    }
}

/// Excludes other writers, in this process and in others, until it is dropped or the process dies.
pub(crate) struct WriteLock {
    _file: File,
    path: PathBuf,
}

impl WriteLock {
    /// Waits for the lock of a KEK file. The lock file is never removed: that would admit two writers.
    pub(crate) fn acquire(path: &Path) -> Result<Self, LocalKmsError> {
        let lock = beside(path, ".lock");
        let file = private(OpenOptions::new().write(true).create(true).truncate(false))
            .open(&lock)
            .map_err(LocalKmsError::io("create", &lock))?;
        file.lock().map_err(LocalKmsError::io("lock", &lock))?;
        Ok(Self {
            _file: file,
            path: path.to_path_buf(),
        })
    }

    /// Tells whether anything is at the path, including a broken link.
    pub(crate) fn exists(&self) -> Result<bool, LocalKmsError> {
        match fs::symlink_metadata(&self.path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(LocalKmsError::io("look at", &self.path)(error)),
        }
    }

    /// Replaces the file's content atomically: a reader finds the old bytes or the new ones, also after a crash.
    pub(crate) fn replace(&self, bytes: &[u8]) -> Result<Stamp, LocalKmsError> {
        let temporary = beside(&self.path, ".tmp");
        // An existing file was left by a writer that died, because this process holds the lock.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LocalKmsError::io("remove", &temporary)(error));
            }
            _ => {}
        }
        let mut file = private(OpenOptions::new().write(true).create_new(true))
            .open(&temporary)
            .map_err(LocalKmsError::io("create", &temporary))?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(LocalKmsError::io("write", &temporary))?;
        let metadata = file
            .metadata()
            .map_err(LocalKmsError::io("look at", &temporary))?;
        fs::rename(&temporary, &self.path).map_err(LocalKmsError::io("replace", &self.path))?;
        sync_directory(&self.path)?;
        Ok(Stamp::new(file, &metadata))
    }
}

/// Creates files with permissions for the owner only.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> Result<(), LocalKmsError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(LocalKmsError::io("sync the directory", directory))
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> Result<(), LocalKmsError> {
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path.as_os_str());
    name.push(suffix);
    name.into()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_users_or_roots() {
        for (owner, user) in [(0, 0), (0, 1000), (1000, 1000)] {
            assert!(owner_ok(owner, user), "{owner}'s file, {user}'s process");
        }
        for (owner, user) in [(1000, 0), (65534, 0), (1001, 1000), (u32::MAX, 1000)] {
            assert!(!owner_ok(owner, user), "{owner}'s file, {user}'s process");
        }
    }
}
