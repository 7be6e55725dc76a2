// Tokens bound to nothing, or to something that cannot be bound.
use encx::Encrypt;
use encx::token::TokenDigest;

#[derive(Encrypt)]
#[encx(table = "tokens", context("purpose" = "tokens"))]
struct Attributes {
    #[encx(id)]
    id: i64,
    owner: String,
    #[encx(encrypt)]
    rights: String,
    #[encx(token)]
    unbound: TokenDigest,
    #[encx(token, bind())]
    empty: TokenDigest,
    #[encx(token, bind(id, rights, ownr, owner, owner))]
    misbound: TokenDigest,
    #[encx(token, bind("owner"))]
    quoted: TokenDigest,
    #[encx(encrypt, bind(owner))]
    value: String,
    #[encx(encrypt, token, bind(owner))]
    both: TokenDigest,
}

#[derive(Encrypt)]
#[encx(table = "tokens", context("purpose" = "tokens"))]
struct Types {
    #[encx(id)]
    id: i64,
    weight: f64,
    #[encx(token, bind(weight))]
    digest: TokenDigest,
    #[encx(token, bind(weight))]
    text: String,
}

#[derive(Encrypt)]
#[encx(fragment)]
struct Part {
    owner: String,
    #[encx(token, bind(owner))]
    digest: TokenDigest,
}

fn main() {}
