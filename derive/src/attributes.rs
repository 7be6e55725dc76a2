//! What stands in `#[encx(..)]`, as it was written. Every fault is noted and reading goes on, so that all are shown at once.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::meta::ParseNestedMeta;
use syn::parse::ParseStream;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Ident, LitInt, LitStr, Path, Token, Visibility, parenthesized};

/// The faults found so far.
#[derive(Default)]
pub(crate) struct Faults(Option<syn::Error>);

impl Faults {
    pub(crate) fn add(&mut self, span: Span, message: impl std::fmt::Display) {
        self.push(syn::Error::new(span, message));
    }

    pub(crate) fn push(&mut self, fault: syn::Error) {
        match &mut self.0 {
            Some(faults) => faults.combine(fault),
            None => self.0 = Some(fault),
        }
    }

    pub(crate) fn finish(self) -> syn::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// A pair of the encryption context.
pub(crate) struct Pair {
    pub(crate) key: LitStr,
    pub(crate) value: PairValue,
}

pub(crate) enum PairValue {
    /// Of a field of the same struct.
    Field(Ident),
    Literal(LitStr),
}

/// The attributes of a struct.
#[derive(Default)]
pub(crate) struct OfStruct {
    pub(crate) table: Option<LitStr>,
    pub(crate) sql_table: Option<LitStr>,
    pub(crate) context: Option<Context>,
    pub(crate) fragment: Option<Span>,
    pub(crate) krate: Option<Path>,
    pub(crate) name: Option<Ident>,
    pub(crate) vis: Option<Visibility>,
    pub(crate) derives: Option<Vec<Path>>,
    pub(crate) attrs: Vec<TokenStream>,
}

/// A `context(..)`.
pub(crate) struct Context {
    pub(crate) span: Span,
    pub(crate) pairs: Vec<Pair>,
}

/// An `index(..)`.
pub(crate) struct OfIndex {
    pub(crate) span: Span,
    pub(crate) normalize: Option<Normalize>,
    pub(crate) bits: Option<LitInt>,
    pub(crate) name: Option<LitStr>,
    pub(crate) column: Option<LitStr>,
    pub(crate) expecting: Option<LitInt>,
    pub(crate) unique: Option<Span>,
    pub(crate) small_domain: Option<Span>,
    pub(crate) context: Option<Context>,
}

pub(crate) enum Normalize {
    /// One of `encx`.
    Named(LitStr),
    /// A constant of the user's.
    Own(Path),
}

/// The attributes of a field.
#[derive(Default)]
pub(crate) struct OfField {
    pub(crate) indexes: Vec<OfIndex>,
    pub(crate) password: Option<Span>,
    pub(crate) password_context: Option<Context>,
    pub(crate) id: Option<Span>,
    pub(crate) id_kind: Option<LitStr>,
    pub(crate) encrypt: Option<Span>,
    pub(crate) json: Option<Span>,
    pub(crate) nested: Option<Span>,
    pub(crate) nested_prefix: Option<LitStr>,
    pub(crate) rename: Option<LitStr>,
    pub(crate) sql_column: Option<LitStr>,
    pub(crate) attrs: Vec<TokenStream>,
}

const STRUCT_KEYS: &str = "`table`, `sql_table`, `context`, `encrypted`, `fragment`, `crate`";
const ENCRYPTED_KEYS: &str = "`name`, `vis`, `derive`, `attr`";
const FIELD_KEYS: &str =
    "`id`, `encrypt`, `index`, `json`, `nested`, `password`, `rename`, `sql_column`, `attr`";
const INDEX_KEYS: &str =
    "`bits`, `normalize`, `column`, `context`, `name`, `unique`, `expecting`, `insecure_small_domain`";

impl OfStruct {
    pub(crate) fn read(attrs: &[Attribute], faults: &mut Faults) -> Self {
        let mut read = Self::default();
        each(attrs, faults, |meta, faults| {
            let span = meta.path.span();
            match name(meta).as_str() {
                "table" => once(&mut read.table, text(meta)?, span, faults),
                "sql_table" => once(&mut read.sql_table, text(meta)?, span, faults),
                "context" => once(&mut read.context, context(meta)?, span, faults),
                "fragment" => once(&mut read.fragment, span, span, faults),
                "crate" => once(&mut read.krate, text(meta)?.parse()?, span, faults),
                "encrypted" => meta.parse_nested_meta(|meta| read.encrypted(&meta, faults))?,
                _ => unknown(meta, "a struct", STRUCT_KEYS, faults)?,
            }
            Ok(())
        });
        read
    }

    fn encrypted(&mut self, meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<()> {
        let span = meta.path.span();
        match name(meta).as_str() {
            "name" => once(&mut self.name, text(meta)?.parse()?, span, faults),
            "vis" => once(&mut self.vis, text(meta)?.parse()?, span, faults),
            "derive" => once(&mut self.derives, list(meta)?, span, faults),
            "attr" => self.attrs.extend(list_of_attributes(meta)?),
            _ => unknown(meta, "`encrypted(..)`", ENCRYPTED_KEYS, faults)?,
        }
        Ok(())
    }
}

impl OfField {
    pub(crate) fn read(attrs: &[Attribute], faults: &mut Faults) -> Self {
        let mut read = Self::default();
        each(attrs, faults, |meta, faults| {
            let span = meta.path.span();
            match name(meta).as_str() {
                "id" => {
                    once(&mut read.id, span, span, faults);
                    inner(meta, |meta| match name(meta).as_str() {
                        "kind" => {
                            once(&mut read.id_kind, text(meta)?, span, faults);
                            Ok(())
                        }
                        _ => unknown(meta, "`id(..)`", "`kind`", faults),
                    })?;
                }
                "encrypt" => once(&mut read.encrypt, span, span, faults),
                "json" => once(&mut read.json, span, span, faults),
                "nested" => {
                    once(&mut read.nested, span, span, faults);
                    inner(meta, |meta| match name(meta).as_str() {
                        "prefix" => {
                            once(&mut read.nested_prefix, text(meta)?, span, faults);
                            Ok(())
                        }
                        _ => unknown(meta, "`nested(..)`", "`prefix`", faults),
                    })?;
                }
                "index" => read.indexes.push(OfIndex::read(meta, faults)?),
                "password" => {
                    once(&mut read.password, span, span, faults);
                    inner(meta, |meta| match name(meta).as_str() {
                        "context" => {
                            once(&mut read.password_context, context(meta)?, span, faults);
                            Ok(())
                        }
                        _ => unknown(meta, "`password(..)`", "`context`", faults),
                    })?;
                }
                "rename" => once(&mut read.rename, text(meta)?, span, faults),
                "sql_column" => once(&mut read.sql_column, text(meta)?, span, faults),
                "attr" => read.attrs.extend(list_of_attributes(meta)?),
                _ => unknown(meta, "a field", FIELD_KEYS, faults)?,
            }
            Ok(())
        });
        read
    }
}

impl OfIndex {
    fn read(meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<Self> {
        let mut read = Self {
            span: meta.path.span(),
            normalize: None,
            bits: None,
            name: None,
            column: None,
            expecting: None,
            unique: None,
            small_domain: None,
            context: None,
        };
        inner(meta, |meta| {
            let span = meta.path.span();
            match name(meta).as_str() {
                "normalize" => once(&mut read.normalize, normalize(meta)?, span, faults),
                "bits" => once(&mut read.bits, meta.value()?.parse()?, span, faults),
                "name" => once(&mut read.name, text(meta)?, span, faults),
                "column" => once(&mut read.column, text(meta)?, span, faults),
                "expecting" => once(&mut read.expecting, meta.value()?.parse()?, span, faults),
                "unique" => once(&mut read.unique, span, span, faults),
                "insecure_small_domain" => once(&mut read.small_domain, span, span, faults),
                "context" => once(&mut read.context, context(meta)?, span, faults),
                _ => unknown(meta, "`index(..)`", INDEX_KEYS, faults)?,
            }
            Ok(())
        })?;
        Ok(read)
    }
}

fn normalize(meta: &ParseNestedMeta<'_>) -> syn::Result<Normalize> {
    let value = meta.value()?;
    if value.peek(LitStr) {
        value.parse().map(Normalize::Named)
    } else {
        value.parse().map(Normalize::Own)
    }
}

/// Reads every `#[encx(..)]`; what cannot be parsed at all is a fault of that attribute alone.
fn each(
    attrs: &[Attribute],
    faults: &mut Faults,
    mut read: impl FnMut(&ParseNestedMeta<'_>, &mut Faults) -> syn::Result<()>,
) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("encx")) {
        if let Err(fault) = attr.parse_nested_meta(|meta| read(&meta, faults)) {
            faults.push(fault);
        }
    }
}

/// Reads what stands in parentheses, if there are any.
fn inner(
    meta: &ParseNestedMeta<'_>,
    mut read: impl FnMut(&ParseNestedMeta<'_>) -> syn::Result<()>,
) -> syn::Result<()> {
    if meta.input.peek(syn::token::Paren) {
        meta.parse_nested_meta(|meta| read(&meta))?;
    }
    Ok(())
}

fn name(meta: &ParseNestedMeta<'_>) -> String {
    meta.path.get_ident().map(Ident::to_string).unwrap_or_default()
}

fn once<T>(slot: &mut Option<T>, value: T, span: Span, faults: &mut Faults) {
    if slot.replace(value).is_some() {
        faults.add(span, "this is given twice; keep one");
    }
}

/// Notes an attribute that is none, and skips its value.
fn unknown(meta: &ParseNestedMeta<'_>, of: &str, known: &str, faults: &mut Faults) -> syn::Result<()> {
    let path = &meta.path;
    let shown = quote::quote!(#path).to_string().replace(' ', "");
    faults.add(
        path.span(),
        format_args!("`{shown}` is no attribute of {of}; there are {known}"),
    );
    while !meta.input.is_empty() && !meta.input.peek(Token![,]) {
        meta.input.parse::<TokenTree>()?;
    }
    Ok(())
}

fn text(meta: &ParseNestedMeta<'_>) -> syn::Result<LitStr> {
    let text: LitStr = meta.value()?.parse()?;
    if text.value().is_empty() {
        return Err(syn::Error::new(text.span(), "this is empty; write a name"));
    }
    Ok(text)
}

fn list(meta: &ParseNestedMeta<'_>) -> syn::Result<Vec<Path>> {
    let content;
    parenthesized!(content in meta.input);
    let paths = Punctuated::<Path, Token![,]>::parse_terminated(&content)?;
    Ok(paths.into_iter().collect())
}

/// Splits `attr(a(..), b = c)` into the attributes to write.
fn list_of_attributes(meta: &ParseNestedMeta<'_>) -> syn::Result<Vec<TokenStream>> {
    let content;
    parenthesized!(content in meta.input);
    let one = |input: ParseStream<'_>| {
        let mut tokens = TokenStream::new();
        while !input.is_empty() && !input.peek(Token![,]) {
            tokens.extend([input.parse::<TokenTree>()?]);
        }
        Ok(tokens)
    };
    let attributes = Punctuated::<TokenStream, Token![,]>::parse_terminated_with(&content, one)?;
    Ok(attributes.into_iter().collect())
}

fn context(meta: &ParseNestedMeta<'_>) -> syn::Result<Context> {
    let content;
    let span = meta.path.span();
    parenthesized!(content in meta.input);
    let pairs = Punctuated::<Pair, Token![,]>::parse_terminated_with(&content, |input| {
        let key = input.parse()?;
        input.parse::<Token![=]>()?;
        let value = if input.peek(LitStr) {
            PairValue::Literal(input.parse()?)
        } else {
            PairValue::Field(input.parse().map_err(|fault| {
                syn::Error::new(fault.span(), "write the name of a field, or a text in quotes")
            })?)
        };
        Ok(Pair { key, value })
    })?;
    let pairs = pairs.into_iter().collect();
    Ok(Context { span, pairs })
}
