//! The built-in schemes: `postgres:`, `postgresql:` and `sqlite:`.

use encx::store::StoreError;

use super::open::OpenStore;
use super::url::StoreUrl;
use crate::error::ConfigError;
use crate::secret::SecretUrl;
use crate::source::Origin;

/// All of them, compiled in or not.
pub(super) const NAMES: [&str; 3] = ["postgres", "postgresql", "sqlite"];

pub(super) fn is_postgres(scheme: &str) -> bool {
    matches!(scheme, "postgres" | "postgresql")
}

/// Refuses a scheme that is not compiled in.
pub(super) fn check(scheme: &str, origin: &Origin) -> Result<(), ConfigError> {
    let (feature, is_compiled) = if is_postgres(scheme) {
        ("postgres", cfg!(feature = "postgres"))
    } else {
        ("sqlite", cfg!(feature = "sqlite"))
    };
    if is_compiled {
        return Ok(());
    }
    Err(ConfigError::NotCompiled {
        origin: origin.clone(),
        scheme: scheme.to_owned(),
        feature,
    })
}

/// Opens a store whose URL was checked.
pub(super) async fn open(url: &StoreUrl) -> Result<OpenStore, StoreError> {
    match url.scheme() {
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => open_postgres(url).await,
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let store = encx_sqlx::SqliteKeyStore::connect(url.url.expose()).await?;
            Ok(OpenStore::new(store.clone()).with_migrations(sqlite::Tables(store)))
        }
        scheme => Err(StoreError::Invalid {
            what: format!("`{scheme}:` is not compiled in"),
        }),
    }
}

#[cfg(feature = "postgres")]
async fn open_postgres(url: &StoreUrl) -> Result<OpenStore, StoreError> {
    let ca_file = url.ca_file.as_deref();
    let mut store = encx_sqlx::PostgresKeyStore::connect(&with_ca_file(url.url.expose(), ca_file)).await?;
    if url.transaction_pooler {
        store = store.behind_transaction_pooler();
    }
    if let Some(listen) = &url.listen_url {
        store = store.listen_url(&with_ca_file(listen.expose(), ca_file));
    }
    Ok(OpenStore::new(store.clone()).with_migrations(postgres::Tables(store)))
}

impl StoreUrl {
    /// Returns the URL with which a driver connects as the key store does.
    pub(crate) fn for_tables(&self) -> SecretUrl {
        #[cfg(feature = "postgres")]
        if is_postgres(self.scheme()) {
            let mut url = with_ca_file(self.url.expose(), self.ca_file.as_deref());
            if self.transaction_pooler && !url.contains("statement-cache-capacity") {
                let separator = if url.contains('?') { '&' } else { '?' };
                url.push(separator);
                url.push_str("statement-cache-capacity=0");
            }
            return SecretUrl::new(url.as_str());
        }
        self.url.clone()
    }

    /// Returns the URL by which the key store listens for changes, if one is set.
    pub(crate) fn for_listening(&self) -> Option<SecretUrl> {
        let url = self.listen_url.as_ref()?;
        #[cfg(feature = "postgres")]
        if is_postgres(self.scheme()) {
            let url = with_ca_file(url.expose(), self.ca_file.as_deref());
            return Some(SecretUrl::new(url.as_str()));
        }
        Some(url.clone())
    }
}

/// Adds the CA file as a parameter that the URL's driver reads.
#[cfg(feature = "postgres")]
fn with_ca_file(url: &str, file: Option<&str>) -> zeroize::Zeroizing<String> {
    let mut url = zeroize::Zeroizing::new(url.to_owned());
    let Some(file) = file else {
        return url;
    };
    let separator = if url.contains('?') { '&' } else { '?' };
    url.push(separator);
    url.push_str("sslrootcert=");
    for byte in file.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
macro_rules! tables {
    ($module:ident, $store:ident) => {
        mod $module {
            use async_trait::async_trait;
            use encx::store::StoreError;
            use encx_sqlx::$store;

            use crate::store::open::{MigrationStep, Migrations};

            #[derive(Debug)]
            pub(super) struct Tables(pub(super) $store);

            #[async_trait]
            impl Migrations for Tables {
                async fn migrate(&self) -> Result<(), StoreError> {
                    self.0.migrate().await
                }

                async fn steps(&self) -> Result<Vec<MigrationStep>, StoreError> {
                    let steps = self.0.migrations().await?;
                    let step = |step: encx_sqlx::MigrationStep| {
                        MigrationStep::new(step.version, step.name, step.is_applied, step.sql)
                    };
                    Ok(steps.into_iter().map(step).collect())
                }
            }
        }
    };
}
#[cfg(feature = "postgres")]
tables!(postgres, PostgresKeyStore);
#[cfg(feature = "sqlite")]
tables!(sqlite, SqliteKeyStore);

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_stands_in_the_url_as_the_driver_reads_it() {
        let with = |url, file| with_ca_file(url, Some(file)).to_string();
        assert_eq!(
            with("postgres://db/app", "/etc/ca.pem"),
            "postgres://db/app?sslrootcert=/etc/ca.pem"
        );
        assert_eq!(
            with("postgres://db/app?sslmode=verify-full", "/etc/my ca&b.pem"),
            "postgres://db/app?sslmode=verify-full&sslrootcert=/etc/my%20ca%26b.pem"
        );
        assert_eq!(*with_ca_file("postgres://db/app", None), "postgres://db/app");
    }
}
