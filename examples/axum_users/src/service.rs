//! The service: its settings, its parts, its shutdown.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use encx_config::{ConfigError, Loader};
use encx_local::{LocalKms, Protection};
use tokio::net::TcpListener;

use crate::database::Database;
use crate::keys;
use crate::operations::Operations;
use crate::routes::router;
use crate::start_error::StartError;
use crate::users::Users;

/// The settings of a first start: everything in the current folder. File permissions alone protect the KEK file.
fn development() -> [(&'static str, String); 3] {
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let store = set("ENCX_KEY_STORE").or_else(|| set("DATABASE_URL"));
    [
        ("ENCX_KMS", "local:axum_users.encx".to_owned()),
        (
            "ENCX_KEY_STORE",
            store.unwrap_or_else(|| "sqlite:axum_users.db".to_owned()),
        ),
        ("ENCX_ALLOW_INSECURE", "1".to_owned()),
    ]
}

/// The settings of the service.
#[derive(Clone, Debug)]
pub struct Settings {
    /// KMS, database and limits, as every program of encx reads them.
    pub encx: encx_config::Settings,
    /// Where to listen.
    pub listen: String,
    /// The bearer token of `/admin`. Without it `/admin` refuses every caller.
    pub admin_token: Option<String>,
    /// A KEK file to create if there is none. Without it a missing file is an error, as it should be in production.
    pub new_kek_file: Option<PathBuf>,
}

impl Settings {
    /// Reads the settings of encx from the environment and `encx.toml`, and `LISTEN` and `ADMIN_TOKEN`.
    ///
    /// If no KMS is configured, it uses files in the current folder, to try it out.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names the variable or the line.
    pub fn from_env() -> Result<Self, ConfigError> {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_configured = is_set("ENCX_KMS") || is_set("ENCX_CONFIG") || Path::new("encx.toml").exists();
        let (loader, new_kek_file) = match is_configured {
            true => (Loader::from_env(), None),
            false => {
                tracing::warn!(
                    "ENCX_KMS is not set: the KEKs in axum_users.encx are protected by file permissions alone"
                );
                (Loader::new().env(development()), Some("axum_users.encx".into()))
            }
        };
        Ok(Self {
            encx: loader.load()?,
            listen: env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned()),
            admin_token: env::var("ADMIN_TOKEN").ok().filter(|token| !token.is_empty()),
            new_kek_file,
        })
    }
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    users: Arc<Users>,
    operations: Operations,
}

impl Service {
    /// Opens KMS and database, creates what is missing, and builds the one `Crypto` of this process.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start(settings: &Settings) -> Result<Self, StartError> {
        if let Some(file) = &settings.new_kek_file {
            LocalKms::open_or_create(file, Protection::insecure_file_permissions_only()).await?;
        }
        let kms = settings.encx.kms().await?;
        // The service's own tables are beside those of the keys.
        let url = settings.encx.key_store_url().ok_or(StartError::NoDatabase)?;
        let database = Database::open(url.expose()).await?;
        let crypto = settings
            .encx
            .builder_on(&kms, database.key_store().await?)?
            // Tenants come from outside: an invented tenant must not create keys.
            .create_on_first_use(false)
            .build()
            .await?;
        keys::prepare_login(&crypto).await?;
        let operations = Operations::start(&crypto, settings.admin_token.as_deref());
        let users = Arc::new(Users { crypto, database });
        Ok(Self { users, operations })
    }

    /// Returns the routes, for tests and other servers.
    pub fn router(&self) -> Router {
        router(Arc::clone(&self.users)).merge(self.operations.router())
    }

    /// Answers requests until `end` completes; then lets in-flight requests complete, and wipes the keys.
    ///
    /// # Errors
    ///
    /// [`StartError::Network`].
    pub async fn serve(
        self,
        listener: TcpListener,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), StartError> {
        let served = axum::serve(listener, self.router())
            .with_graceful_shutdown(end)
            .await;
        self.operations.stop();
        self.users.crypto.shutdown().await;
        self.users.database.close().await;
        Ok(served?)
    }
}
