//! What `#[derive(Encrypt)]` generates, on an in-memory KMS and key store.

#![allow(clippy::unwrap_used, reason = "test code: a panic is a failed test")]

mod batches;
mod compound;
mod failures;
mod names;
mod passwords;
mod places;
mod search;
mod shapes;
mod tokens;

use encx::Encrypt;
use uuid::Uuid;

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Prefs {
    theme: String,
    sizes: Vec<u8>,
}

#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(fragment)]
struct Address {
    #[encx(encrypt)]
    street: String,
    #[encx(encrypt, rename = "house_number")]
    house: Option<u16>,
    country: String,
    #[encx(nested)]
    place: Option<Place>,
}

#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(fragment)]
struct Place {
    #[encx(encrypt)]
    latitude: f64,
}

#[derive(Encrypt, Clone, Debug, PartialEq)]
#[encx(table = "users", context("tenantId" = tenant_id, "purpose" = "pii"))]
struct User {
    #[encx(id)]
    id: Uuid,
    tenant_id: String,
    #[encx(encrypt)]
    email: String,
    #[encx(encrypt, rename = "ssn", sql_column = "social_security")]
    social: Option<String>,
    #[encx(nested)]
    address: Address,
    #[encx(nested(prefix = "billing_"))]
    billing: Option<Address>,
    #[encx(json)]
    prefs: Prefs,
    #[encx(json)]
    r#type: Option<Vec<u32>>,
}

fn address(street: &str) -> Address {
    Address {
        street: street.to_owned(),
        house: Some(7),
        country: "DE".to_owned(),
        place: Some(Place { latitude: 52.5 }),
    }
}

fn user(number: u8, tenant: &str) -> User {
    User {
        id: Uuid::from_bytes([number; 16]),
        tenant_id: tenant.to_owned(),
        email: format!("{number}@example.com"),
        social: Some("123-45-6789".to_owned()),
        address: address("Main Street"),
        billing: None,
        prefs: Prefs {
            theme: "dark".to_owned(),
            sizes: vec![1, 2],
        },
        r#type: Some(vec![3]),
    }
}
