//! The key store by URL: the configured one, the known schemes, and opening.

mod open;
mod schemes;
mod url;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use self::open::store_error;
pub use self::open::{MigrationStep, Migrations, OpenStore};
pub use self::url::StoreUrl;
use crate::error::{BoxError, ConfigError};
use crate::keys;
use crate::resolve::{Environment, Resolver};
use crate::source::Set;
use crate::units;

type Opening = Pin<Box<dyn Future<Output = Result<OpenStore, BoxError>> + Send>>;
type Open = Arc<dyn Fn(StoreUrl) -> Opening + Send + Sync>;

/// Schemes that the program registered.
#[derive(Clone, Default)]
pub(crate) struct StoreSchemes(BTreeMap<String, Open>);

impl StoreSchemes {
    pub(crate) fn register<F, Fut>(&mut self, scheme: String, open: F)
    where
        F: Fn(StoreUrl) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<OpenStore, BoxError>> + Send + 'static,
    {
        self.0.insert(scheme, Arc::new(move |url| Box::pin(open(url))));
    }

    fn known(&self) -> Vec<String> {
        let own = self.0.keys().map(|scheme| format!("`{scheme}:`"));
        own.chain(schemes::NAMES.iter().map(|scheme| format!("`{scheme}:`")))
            .collect()
    }

    /// Opens a key store.
    pub(crate) async fn open(&self, url: &StoreUrl) -> Result<OpenStore, ConfigError> {
        let opened = match self.0.get(url.scheme()) {
            Some(open) => open(url.clone())
                .await
                .map_err(|error| ConfigError::StoreProvider {
                    url: url.url.clone(),
                    origin: url.origin.clone(),
                    source: Arc::from(error),
                }),
            None => schemes::open(url)
                .await
                .map_err(|error| store_error(&url.url, &url.origin, error)),
        };
        let mut opened = opened?;
        opened.place = Some(Arc::new((url.url.clone(), url.origin.clone())));
        Ok(opened)
    }
}

/// Reads `key_store` of the file, and its variables.
///
/// # Errors
///
/// [`ConfigError::Value`], [`ConfigError::UnknownScheme`], [`ConfigError::NotCompiled`].
pub(crate) fn resolve(
    resolver: &mut Resolver<'_>,
    schemes: &StoreSchemes,
    env: &Arc<Environment>,
) -> Result<Option<StoreUrl>, ConfigError> {
    let url = resolver.url(&keys::KEY_STORE)?;
    let listen_url = resolver.url(&keys::LISTEN_URL)?;
    let ca_file = resolver.text(&keys::STORE_CA_FILE)?;
    let pooler = resolver.boolean(&keys::TRANSACTION_POOLER)?;
    let Some(Set { value: url, origin }) = url else {
        return Ok(None);
    };
    let unknown = |what: String| ConfigError::UnknownScheme {
        origin: origin.clone(),
        what,
        known: schemes.known(),
    };
    let Some(scheme) = url.scheme() else {
        return Err(unknown(
            "it is not a database URL, which starts with a scheme and a colon".to_owned(),
        ));
    };
    let is_own = schemes.0.contains_key(scheme);
    if !is_own && !schemes::NAMES.contains(&scheme) {
        return Err(unknown(format!(
            "no key store has URLs with `{}:`",
            units::shown(scheme)
        )));
    }
    let is_postgres = schemes::is_postgres(scheme);
    let of_postgres = [
        listen_url.as_ref().filter(|_| !is_own).map(|set| &set.origin),
        ca_file.as_ref().map(|set| &set.origin),
    ];
    if !is_postgres && let Some(origin) = of_postgres.into_iter().flatten().next() {
        return Err(ConfigError::Value {
            origin: origin.clone(),
            what: format!("it is for PostgreSQL, and the key store's URL starts with `{scheme}:`"),
            write: "nothing there".to_owned(),
        });
    }
    if !is_own {
        schemes::check(scheme, &origin)?;
    }
    Ok(Some(StoreUrl {
        listen_url: listen_url.map(|set| set.value),
        ca_file: ca_file.map(|set| set.value),
        transaction_pooler: pooler.unwrap_or_default(),
        env: Arc::clone(env),
        url,
        origin,
    }))
}
