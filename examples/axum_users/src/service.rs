//! The service: what it is set up with, what it is made of, how it ends.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use encx::Crypto;
use encx::kms::KeyManagementService;
use encx_local::{LocalKms, LocalKmsError, Protection};
use tokio::net::TcpListener;

use crate::database::Database;
use crate::keys;
use crate::operations::Operations;
use crate::routes::router;
use crate::start_error::StartError;
use crate::users::Users;

/// The variable that may hold the key of the KEK file: 32 random bytes, as base64 or hex.
const KEK_FILE_KEY: &str = "KEK_FILE_KEY";

/// What the service is set up with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `sqlite:` and a path, or `postgres://..`.
    pub database_url: String,
    /// The file of the local KEK, which is made if there is none. Whoever loses it loses all data.
    pub kek_file: PathBuf,
    /// Where to listen.
    pub listen: String,
    /// What callers of `/admin` have to know. Without it nobody may call that.
    pub admin_token: Option<String>,
}

impl Settings {
    /// Reads `DATABASE_URL`, `KEK_FILE`, `LISTEN` and `ADMIN_TOKEN`. The first three have a default: files in the current folder,
    /// and port 3000 of this machine alone.
    #[must_use]
    pub fn from_env() -> Self {
        let or = |name: &str, default: &str| env::var(name).unwrap_or_else(|_| default.to_owned());
        Self {
            database_url: or("DATABASE_URL", "sqlite:axum_users.db"),
            kek_file: or("KEK_FILE", "axum_users.encx").into(),
            listen: or("LISTEN", "127.0.0.1:3000"),
            admin_token: env::var("ADMIN_TOKEN").ok().filter(|token| !token.is_empty()),
        }
    }
}

/// A service that is ready to serve.
#[derive(Debug)]
pub struct Service {
    users: Arc<Users>,
    operations: Operations,
}

impl Service {
    /// Opens the database and the KEK file, makes what is not there yet, and builds the one `Crypto` of this process.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start(settings: &Settings) -> Result<Self, StartError> {
        Self::start_with(settings, open_kms(settings).await?).await
    }

    /// The same with a KMS of the caller's, such as one that tests can stop.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn start_with(settings: &Settings, kms: impl KeyManagementService) -> Result<Self, StartError> {
        let database = Database::open(&settings.database_url).await?;
        let crypto = Crypto::builder(kms, database.key_store().await?)
            // Tenants come from outside: nobody may have keys made by inventing one.
            .create_on_first_use(false)
            .build()
            .await?;
        keys::prepare_login(&crypto).await?;
        let operations = Operations::start(&crypto, settings.admin_token.as_deref());
        let users = Arc::new(Users { crypto, database });
        Ok(Self { users, operations })
    }

    /// Returns the routes, for tests and for servers of your own.
    pub fn router(&self) -> Router {
        router(Arc::clone(&self.users)).merge(self.operations.router())
    }

    /// Answers requests until `end` completes; then lets those that are under way end, and wipes the keys.
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

/// In production, `encx_aws::AwsKms::from_env().await?` takes the place of this.
async fn open_kms(settings: &Settings) -> Result<LocalKms, LocalKmsError> {
    let protection = if env::var_os(KEK_FILE_KEY).is_some() {
        Protection::key_from_env(KEK_FILE_KEY)
    } else {
        tracing::warn!("{KEK_FILE_KEY} is not set: whoever can read the KEK file can read everything");
        Protection::insecure_file_permissions_only()
    };
    LocalKms::open_or_create(&settings.kek_file, protection).await
}
