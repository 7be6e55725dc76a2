//! [`Program`]: the program with an application's own parts.

use std::fmt;
use std::sync::Arc;

use encx::CryptoBuilder;
use encx_config::Loader;

type Customize = Arc<dyn Fn(CryptoBuilder) -> CryptoBuilder + Send + Sync>;

/// The program `encx` with an application's own KEK rule, KMS or key store. Run it with [`run`](crate::run).
#[derive(Clone)]
#[must_use = "it does nothing until it is given to `run`"]
pub struct Program {
    pub(crate) loader: Loader,
    customize: Option<Customize>,
}

impl Program {
    /// Creates the program. `loader` reads the settings; `ENCX_KMS` and `ENCX_KEY_STORE` may use its schemes.
    pub fn new(loader: Loader) -> Self {
        Self {
            loader,
            customize: None,
        }
    }

    /// Changes the builder after the settings were applied, as the service does: a KEK rule closure, a census.
    pub fn customize(
        mut self,
        change: impl Fn(CryptoBuilder) -> CryptoBuilder + Send + Sync + 'static,
    ) -> Self {
        self.customize = Some(Arc::new(change));
        self
    }

    pub(crate) fn customized(&self, builder: CryptoBuilder) -> CryptoBuilder {
        match &self.customize {
            Some(change) => change(builder),
            None => builder,
        }
    }
}

impl From<Loader> for Program {
    fn from(loader: Loader) -> Self {
        Self::new(loader)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("loader", &self.loader)
            .field("customize", &self.customize.is_some())
            .finish()
    }
}
