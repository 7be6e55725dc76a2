//! The contents of `index(..)`, above a field or above a struct.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::parse::{Parse, ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Ident, LitInt, LitStr, Path, Token, bracketed, parenthesized};

use super::parts::{
    Context, Faults, context, inner, list_of_attributes, name, once, skip, text, unknown, value,
};

/// An `index(..)`.
pub(crate) struct OfIndex {
    pub(crate) span: Span,
    /// The fields of a compound index.
    pub(crate) fields: Option<Vec<OfPart>>,
    pub(crate) normalize: Option<Normalize>,
    pub(crate) bits: Option<LitInt>,
    pub(crate) name: Option<LitStr>,
    pub(crate) column: Option<LitStr>,
    pub(crate) expecting: Option<LitInt>,
    pub(crate) unique: Option<Span>,
    pub(crate) small_domain: Option<Span>,
    pub(crate) context: Option<Context>,
    pub(crate) attrs: Vec<TokenStream>,
}

/// A field of a compound index.
pub(crate) struct OfPart {
    pub(crate) field: Ident,
    pub(crate) normalize: Option<Normalize>,
}

pub(crate) enum Normalize {
    /// A normaliser of `encx`.
    Named(LitStr),
    /// A constant of the user's own.
    Own(Path),
}

const INDEX_KEYS: &str = "`bits`, `normalize`, `column`, `context`, `name`, `unique`, `expecting`, \
                          `insecure_small_domain`, `attr`";
const COMPOUND_KEYS: &str = "`name`, `fields`, `bits`, `column`, `context`, `unique`, `expecting`, \
                             `insecure_small_domain`, `attr`";

impl OfIndex {
    pub(super) fn of_field(meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<Self> {
        Self::read(meta, faults, |meta, read, faults| {
            match name(meta).as_str() {
                "normalize" => once(&mut read.normalize, normalize(meta)?, meta.path.span(), faults),
                "fields" => {
                    return Err(meta.error(
                        "an index over several fields goes above the struct: `#[encx(index(name = \"name_born\", \
                         fields = [last_name, born], bits = 16))]`",
                    ));
                }
                _ => unknown(meta, "`index(..)`", INDEX_KEYS, faults)?,
            }
            Ok(())
        })
    }

    pub(super) fn of_struct(meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<Self> {
        Self::read(meta, faults, |meta, read, faults| {
            match name(meta).as_str() {
                "fields" => {
                    let parts = parts(meta, faults)?;
                    once(&mut read.fields, parts, meta.path.span(), faults);
                }
                "normalize" => {
                    return Err(meta.error(
                        "each field has a normaliser of its own: `fields = [last_name(normalize = \"case-fold\"), born]`",
                    ));
                }
                _ => unknown(meta, "`index(..)` of a struct", COMPOUND_KEYS, faults)?,
            }
            Ok(())
        })
    }

    /// Reads what both kinds of index have, and leaves the rest to `other`.
    fn read(
        meta: &ParseNestedMeta<'_>,
        faults: &mut Faults,
        other: impl Fn(&ParseNestedMeta<'_>, &mut Self, &mut Faults) -> syn::Result<()>,
    ) -> syn::Result<Self> {
        let mut read = Self {
            span: meta.path.span(),
            fields: None,
            normalize: None,
            bits: None,
            name: None,
            column: None,
            expecting: None,
            unique: None,
            small_domain: None,
            context: None,
            attrs: Vec::new(),
        };
        inner(meta, faults, |meta, faults| {
            let span = meta.path.span();
            match name(meta).as_str() {
                "bits" => {
                    let bits = value(meta, "write a number: `bits = 16`")?;
                    once(&mut read.bits, bits, span, faults);
                }
                "name" => once(&mut read.name, text(meta, faults)?, span, faults),
                "column" => once(&mut read.column, text(meta, faults)?, span, faults),
                "expecting" => {
                    let distinct = value(meta, "write a number: `expecting = 10_000`")?;
                    once(&mut read.expecting, distinct, span, faults);
                }
                "unique" => once(&mut read.unique, span, span, faults),
                "insecure_small_domain" => once(&mut read.small_domain, span, span, faults),
                "context" => once(&mut read.context, context(meta, faults)?, span, faults),
                "attr" => read.attrs.extend(list_of_attributes(meta)?),
                _ => other(meta, &mut read, faults)?,
            }
            Ok(())
        })?;
        Ok(read)
    }
}

/// Reads `= [last_name(normalize = "case-fold"), born]`. In brackets, because Clippy takes equal words in the parentheses
/// of two attributes for a mistake.
fn parts(meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<Vec<OfPart>> {
    let content;
    let input = meta
        .value()
        .map_err(|_| meta.error("write the fields in brackets: `fields = [last_name, born]`"))?;
    bracketed!(content in input);
    let mut parts = Vec::new();
    while !content.is_empty() {
        match content.parse() {
            Ok(part) => parts.push(part),
            Err(fault) => {
                faults.push(fault);
                skip(&content)?;
            }
        }
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    Ok(parts)
}

impl Parse for OfPart {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let field = input
            .call(Ident::parse_any)
            .map_err(|fault| syn::Error::new(fault.span(), "write the name of a field"))?;
        let mut normalize = None;
        if input.peek(syn::token::Paren) {
            let content;
            let group = parenthesized!(content in input);
            let tokens: TokenStream = content.parse()?;
            let one = |input: ParseStream<'_>| {
                input.parse::<kw::normalize>()?;
                input.parse::<Token![=]>()?;
                input.parse()
            };
            let message = "write `normalize = \"case-fold\"` here, or another normaliser";
            let read = one.parse2(tokens);
            normalize = Some(read.map_err(|_| syn::Error::new(group.span.join(), message))?);
        }
        if !input.is_empty() && !input.peek(Token![,]) {
            return Err(input.error("unexpected text; remove it, or put a `,` before it"));
        }
        Ok(Self { field, normalize })
    }
}

mod kw {
    syn::custom_keyword!(normalize);
}

impl Parse for Normalize {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.peek(LitStr) {
            input.parse().map(Self::Named)
        } else {
            input.parse().map(Self::Own)
        }
    }
}

fn normalize(meta: &ParseNestedMeta<'_>) -> syn::Result<Normalize> {
    value(
        meta,
        "write a normaliser in quotes: `normalize = \"email\"`, or a constant of your own: `normalize = MY_NORMALIZER`",
    )
}
