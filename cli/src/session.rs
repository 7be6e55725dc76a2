//! What commands open: settings, key store, KMSs, key manager.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use encx::keys::{KeyManager, Maintenance};
use encx::kms::{KekRef, KmsErrorKind};
use encx::store::KeyStore;
use encx::{Crypto, CryptoBuilder};
use encx_config::{OpenKms, OpenStore, Settings};
use encx_tables::{Census, Rows};
use tokio::sync::OnceCell;

use crate::exit::{self, Exit};
use crate::output::{Format, Output, tell};
use crate::program::Program;
use crate::rows;

/// Options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Read settings from this file instead of encx.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The format of data on stdout
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) format: Format,
}

/// Returns this process's name in the registry while it has a [`Crypto`].
pub(crate) fn own_name() -> String {
    format!("encx {}", std::process::id())
}

/// A run of the program: its settings, and the KMSs and key store, opened on first use.
pub(crate) struct Session {
    program: Program,
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    kms: OnceCell<OpenKms>,
    store: OnceCell<OpenStore>,
}

impl Session {
    pub(crate) fn new(program: &Program, global: &Global) -> Result<Self> {
        let mut loader = program.loader.clone();
        if let Some(file) = &global.config {
            loader = loader.file(file);
        }
        Ok(Self {
            program: program.clone(),
            settings: loader.load()?,
            output: Output(global.format),
            kms: OnceCell::new(),
            store: OnceCell::new(),
        })
    }

    pub(crate) async fn open_store(&self) -> Result<&OpenStore> {
        // Boxed: clients of servers are large, and every command would hold them on its stack.
        let open = || Box::pin(self.settings.key_store());
        Ok(self.store.get_or_try_init(open).await?)
    }

    pub(crate) async fn store(&self) -> Result<Arc<dyn KeyStore>> {
        Ok(self.open_store().await?.key_store())
    }

    pub(crate) async fn kms(&self) -> Result<&OpenKms> {
        let open = || Box::pin(self.settings.kms());
        Ok(self.kms.get_or_try_init(open).await?)
    }

    pub(crate) async fn builder(&self) -> Result<CryptoBuilder> {
        let builder = self.settings.builder_on(self.kms().await?, self.store().await?)?;
        // During an outage, a command's report is more useful than its refusal to start.
        let builder = builder.require_kms(false);
        Ok(self.program.customized(builder))
    }

    pub(crate) async fn crypto(&self) -> Result<Crypto> {
        Self::build(self.builder().await?).await
    }

    /// Opens a `Crypto` even if the KMS does not answer or knows none of the keys. The caller reports that.
    pub(crate) async fn lazy_crypto(&self) -> Result<Crypto> {
        Self::build(self.builder().await?.connect_lazily()).await
    }

    async fn build(builder: CryptoBuilder) -> Result<Crypto> {
        // A killed process cannot sign off: `keys destroy` waits this long for it.
        let builder = builder.ttl(Duration::from_secs(60));
        Ok(builder.process_name(own_name()).build().await?)
    }

    /// Opens what work on rows needs, does it, and closes it.
    pub(crate) async fn with_rows(
        &self,
        work: impl AsyncFnOnce(&Rows, &Crypto) -> Result<Exit>,
    ) -> Result<Exit> {
        // The store first: where the database is down, it says so sooner.
        self.store().await?;
        let rows = rows::connect(&self.settings).await?;
        let crypto = self.crypto().await?;
        let done = work(&rows, &crypto).await;
        // Even if it failed: `keys destroy` waits for processes that did not sign off.
        crypto.shutdown().await;
        done
    }

    /// Parses the name of a KEK: `KEK`, or `KMS:KEK`.
    pub(crate) async fn kek(&self, text: &str) -> Result<KekRef> {
        Ok(self.kms().await?.parse_kek(text)?)
    }

    /// Lists the KEKs that the KEK rule names.
    pub(crate) async fn named_keks(&self) -> Result<Vec<KekRef>> {
        let named = self.manager(None).await?.named_keks();
        Ok(named.wrapping.into_iter().chain(named.unwrapping).collect())
    }

    /// Resolves a KEK to the name that wraps record.
    ///
    /// Only its KMS can resolve an alias. Any other name may be that of a deleted KEK, and is returned unchanged.
    pub(crate) async fn lasting(&self, kek: KekRef) -> Result<KekRef> {
        let Some(service) = self.kms().await?.get(&kek.kms) else {
            return Ok(kek);
        };
        match service.describe_kek(&kek.kek).await {
            Ok(description) => Ok(KekRef::new(kek.kms, description.kek)),
            Err(error)
                if error.kind() == KmsErrorKind::NotFound && !kek.kek.as_str().starts_with("alias/") =>
            {
                Ok(kek)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens maintenance with the configured rotation periods. Prints why if it cannot.
    pub(crate) async fn maintenance(&self) -> Option<Maintenance> {
        match self.manager(None).await {
            Ok(manager) => Some(self.settings.maintenance(manager)),
            Err(error) => {
                tell(&format!("what is due is not shown: {}", exit::describe(&error)));
                None
            }
        }
    }

    /// Opens a census of the declared columns. `None` if none is declared.
    pub(crate) async fn census(&self) -> Result<Option<Census>> {
        let columns: Vec<_> = self
            .settings
            .columns()
            .iter()
            .map(|declared| declared.column.clone())
            .collect();
        if columns.is_empty() {
            return Ok(None);
        }
        Ok(Some(rows::connect(&self.settings).await?.census(columns)?))
    }

    /// Opens a key manager that records this reason in the audit log.
    pub(crate) async fn manager(&self, because: Option<&str>) -> Result<KeyManager> {
        let manager = self.builder().await?.build_key_manager()?;
        Ok(match because {
            Some(reason) => manager.because(reason),
            None => manager,
        })
    }
}
