//! Settings from variables and files: which value wins, what is refused and how, and what is built.
#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod columns;
mod kms;
mod loading;
mod local;
mod rule;
mod store;

use std::path::PathBuf;

use encx_config::{ConfigError, Loader, Settings};
use tempfile::TempDir;

/// Loads settings from variables only.
fn of_env(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    Loader::new().env(variables.iter().copied()).load()
}

/// A file `encx.toml` in its own folder.
struct File {
    folder: TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encx.toml");
        std::fs::write(&path, text).unwrap();
        Self { folder, path }
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        self.load_with(&[])
    }

    fn load_with(&self, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Loader::new()
            .env(variables.iter().copied())
            .file(&self.path)
            .load()
    }

    /// Returns an error's text, with `encx.toml` for the file's path.
    fn refusal(&self) -> String {
        self.shorten(&self.load().unwrap_err().to_string())
    }

    fn shorten(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }
}
