// Fields that cannot be nested, or not like this.
use encx::Encrypt;

#[derive(Encrypt)]
#[encx(fragment)]
struct Address {
    #[encx(encrypt)]
    street: String,
}

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
struct Many {
    #[encx(id)]
    id: i64,
    #[encx(nested)]
    addresses: Vec<Address>,
    #[encx(nested)]
    former: Option<std::collections::HashMap<String, Address>>,
    #[encx(nested)]
    two: [Address; 2],
}

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
struct Twice {
    #[encx(id)]
    id: i64,
    #[encx(nested)]
    home: Address,
    #[encx(nested)]
    billing: Option<Address>,
}

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
#[encx(encrypted(derive(sqlx::FromRow)))]
struct Read {
    #[encx(id)]
    id: i64,
    #[encx(nested)]
    home: Option<Address>,
    #[encx(nested(prefix = "billing_"))]
    billing: Address,
}

fn main() {}
