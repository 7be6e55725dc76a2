// Invalid indexes and passwords.
use encx::Encrypt;

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
struct Indexes {
    #[encx(id)]
    id: i64,
    #[encx(encrypt, index(bits = 16))]
    weight: Option<f64>,
    #[encx(encrypt, index(normalize = "e-mail"))]
    email: String,
    #[encx(encrypt, index(normalize = "e-mail", bits = 4))]
    name: String,
    #[encx(encrypt, index(bits = 64, unique, nmae = "a"))]
    #[encx(index(bits = 64, context("tenantId" = tenant)))]
    phone: String,
    #[encx(index(bits = 16))]
    city: String,
    #[encx(json, index(bits = 16))]
    tags: String,
}

#[derive(Encrypt)]
#[encx(table = "users", context("purpose" = "pii"))]
struct Passwords {
    #[encx(id)]
    id: i64,
    #[encx(password, encrypt)]
    password: encx::record::Password,
}

#[derive(Encrypt)]
#[encx(fragment)]
struct Part {
    #[encx(encrypt, index(bits = 16))]
    street: String,
}

fn main() {}
