//! The default name of a process in the audit log.

/// Returns the name of the executable file.
pub(crate) fn name_of_executable() -> Option<String> {
    let path = std::env::current_exe().ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}
