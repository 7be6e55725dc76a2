//! A KMS client for each region, made when it is first needed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use aws_sdk_kms::Client;
use aws_sdk_kms::config::{Builder, Region};

/// The regions that KEKs may be in, and how to reach them.
pub(crate) struct Clients {
    base: Builder,
    /// The region of the caller's own configuration, which may name an endpoint for it.
    home: String,
    inherited: Option<String>,
    /// Endpoints that were set here.
    endpoints: BTreeMap<String, String>,
    made: Mutex<BTreeMap<String, Client>>,
}

impl Clients {
    pub(crate) fn new(
        base: Builder,
        home: String,
        inherited: Option<&str>,
        endpoints: BTreeMap<String, String>,
    ) -> Self {
        Self {
            base,
            home,
            inherited: inherited.map(str::to_owned),
            endpoints,
            made: Mutex::default(),
        }
    }

    pub(crate) fn client(&self, region: &str) -> Client {
        // Nothing that could panic happens between two steps of a change.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(region) {
            return client.clone();
        }
        let mut config = self.base.clone().region(Region::new(region.to_owned()));
        // An endpoint belongs to one region, so another's must not be inherited. `AWS_ENDPOINT_URL_KMS` and its kin
        // are in `base` already.
        let own = self.endpoints.get(region);
        if own.is_some() || region != self.home {
            config.set_endpoint_url(own.cloned());
        }
        let client = Client::from_conf(config.build());
        made.insert(region.to_owned(), client.clone());
        client
    }

    /// Returns the endpoint of a region, unless it is AWS's own.
    pub(crate) fn endpoint(&self, region: &str) -> Option<&str> {
        let inherited = || self.inherited.as_ref().filter(|_| region == self.home);
        self.endpoints.get(region).or_else(inherited).map(String::as_str)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("home", &self.home)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}
