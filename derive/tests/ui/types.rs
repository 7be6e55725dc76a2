// Types that cannot be encrypted, nested or bound.
use encx::Encrypt;

type Price = f64;

struct Address {
    street: String,
}

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
struct Unknown {
    #[encx(id)]
    id: Option<i64>,
    #[encx(encrypt)]
    address: Address,
}

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
struct Nested {
    #[encx(id)]
    id: i64,
    #[encx(nested)]
    address: Address,
}

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
struct Lookups {
    #[encx(id)]
    id: i64,
    #[encx(password)]
    password: String,
    #[encx(encrypt, index(bits = 8))]
    admin: bool,
    #[encx(encrypt, index(bits = 16))]
    price: Price,
}

fn main() {}
