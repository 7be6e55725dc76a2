//! A KMS that the test can block, break and count, in any process.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use encx::kms::{
    DataKey, GeneratedDataKey, KekDescription, KekId, KeyManagementService, KmsContext, KmsError,
    KmsErrorKind, KmsOperation, WrappedKey,
};
use encx_local::{LocalKms, Protection};

use crate::scene::until;

/// KEKs in a file shared by the processes, behind the switches of a [`Control`].
#[derive(Debug)]
pub(crate) struct ControlledKms {
    inner: LocalKms,
    control: Control,
}

impl ControlledKms {
    pub(crate) async fn open(keks: &Path, control: Control) -> Self {
        let inner = LocalKms::open(keks, Protection::insecure_file_permissions_only());
        let inner = inner.await.unwrap();
        Self { inner, control }
    }

    /// Counts a call and applies the switches to it. `key` is the data key's id.
    async fn pass(
        &self,
        operation: &'static str,
        of: KmsOperation,
        kek: &KekId,
        context: &KmsContext,
    ) -> Result<(), KmsError> {
        let key = context.pairs().find(|(name, _)| *name == "encx:key");
        self.control.log(operation, key.map_or("", |(_, key)| key));
        while self.control.is_set(&format!("hang-{operation}")) {
            self.control.set(&format!("held-{operation}"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (switch, kind) in [
            ("down", KmsErrorKind::Unavailable),
            ("denied", KmsErrorKind::AccessDenied),
        ] {
            if self.control.is_set(switch) {
                return Err(KmsError::new(kind, "controlled", of, kek));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl KeyManagementService for ControlledKms {
    fn provider(&self) -> &'static str {
        self.inner.provider()
    }

    fn default_kek(&self) -> Option<&KekId> {
        self.inner.default_kek()
    }

    async fn generate_data_key(
        &self,
        kek: &KekId,
        context: &KmsContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.pass("generate", KmsOperation::GenerateDataKey, kek, context)
            .await?;
        self.inner.generate_data_key(kek, context).await
    }

    async fn wrap_key(
        &self,
        kek: &KekId,
        key: &DataKey,
        context: &KmsContext,
    ) -> Result<WrappedKey, KmsError> {
        self.pass("wrap", KmsOperation::WrapKey, kek, context).await?;
        self.inner.wrap_key(kek, key, context).await
    }

    async fn unwrap_key(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<DataKey, KmsError> {
        self.pass("unwrap", KmsOperation::UnwrapKey, &wrapped.kek, context)
            .await?;
        self.inner.unwrap_key(wrapped, context).await
    }

    async fn rewrap_key(
        &self,
        wrapped: &WrappedKey,
        context: &KmsContext,
        to: &KekId,
    ) -> Result<WrappedKey, KmsError> {
        self.pass("rewrap", KmsOperation::RewrapKey, to, context).await?;
        self.inner.rewrap_key(wrapped, context, to).await
    }

    async fn describe_kek(&self, kek: &KekId) -> Result<KekDescription, KmsError> {
        self.inner.describe_kek(kek).await
    }
}

/// A folder whose files are switches, and the log of all calls.
#[derive(Clone, Debug)]
pub(crate) struct Control(PathBuf);

impl Control {
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Sets a switch: `hang-` and `held-` with an operation, `down`, `denied`.
    pub(crate) fn set(&self, switch: &str) {
        fs::write(self.0.join(switch), "").unwrap();
    }

    pub(crate) fn clear(&self, switch: &str) {
        fs::remove_file(self.0.join(switch)).unwrap();
    }

    fn is_set(&self, switch: &str) -> bool {
        self.0.join(switch).exists()
    }

    /// Waits until a call of this operation hangs.
    pub(crate) async fn until_held(&self, operation: &str) {
        let held = format!("held-{operation}");
        until(&held, Duration::from_secs(20), async || self.is_set(&held)).await;
    }

    /// Short lines that are each appended in one write do not interleave.
    fn log(&self, operation: &str, key: &str) {
        let line = format!("{operation} {key}\n");
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.0.join("calls"));
        log.unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// Lists the data key ids of an operation's calls so far, by all processes.
    pub(crate) fn calls(&self, operation: &str) -> Vec<String> {
        let log = fs::read_to_string(self.0.join("calls")).unwrap_or_default();
        let calls = log.lines().filter_map(|line| line.split_once(' '));
        calls
            .filter(|(what, _)| *what == operation)
            .map(|(_, key)| key.to_owned())
            .collect()
    }
}
