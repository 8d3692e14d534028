//! What a client may ask of any call: `?dry_run=` and `?as_of=`.

use crate::query::boolean;
use crate::route::{DryRun, Past};
use crate::{Query, Route};
use base::{Fault, Result, Timestamp};
use store::scope::{Plan, no_dry_run};
use store::{AsOf, Rev, Scope};

/// Takes both parameters out of the query and makes the scope in which the handler runs.
pub(crate) fn scope(route: &Route, query: &mut Query) -> Result<Scope> {
    let dry = query.take("dry_run")?;
    let as_of = query.take("as_of")?;
    let mut scope = Scope::default();
    if let Some(text) = &as_of {
        if route.mutates() {
            return Err(Fault::invalid(format!(
                "as_of='{text}' asks for the past, and {} changes the present.",
                route.operation
            )));
        }
        if let Past::Not(why) = route.past {
            return Err(Fault::invalid(format!("{} does not answer as_of: {why}.", route.operation)));
        }
        scope.as_of = Some(moment(text)?);
    }
    if let Some(text) = &dry {
        let dry = boolean("dry_run", text)?;
        if !route.mutates() {
            return Err(Fault::invalid(format!("dry_run='{text}': {} changes nothing.", route.operation)));
        }
        if let (true, DryRun::Not(why)) = (dry, route.dry) {
            return Err(no_dry_run(route.operation, why));
        }
        scope.dry = dry.then(Plan::new);
    }
    Ok(scope)
}

/// `rev:N`, `N`, or a time as RFC 3339 says. Where a `+` became a space on its way, it is put back.
fn moment(text: &str) -> Result<AsOf> {
    let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
    let found = match text.strip_prefix("rev:") {
        Some(digits) => number(digits).map(|rev| AsOf::Rev(Rev(rev))),
        None if !text.is_empty() && number(text).is_some() => number(text).map(|rev| AsOf::Rev(Rev(rev))),
        None => Timestamp::parse(text).or_else(|| Timestamp::parse(&zoned(text)?)).map(AsOf::Time),
    };
    found.ok_or_else(|| {
        Fault::invalid(format!(
            "Invalid value for as_of: '{text}' is neither a time such as 2026-01-31T12:00:00Z nor a revision such as \
             rev:1234."
        ))
    })
}

/// `2026-01-31T12:00:00 02:00` with its `+`.
fn zoned(text: &str) -> Option<String> {
    let (time, zone) = text.rsplit_once(' ')?;
    (time.contains(['T', ' ']) && zone.contains(':')).then(|| format!("{time}+{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, Call, Method, Reply};
    use expect_test::expect;
    use std::sync::Arc;

    async fn handler(_: Arc<()>, _: Call) -> Result<Reply> {
        Ok(Reply::empty(204))
    }

    fn check(method: Method, text: &str, expected: expect_test::Expect) {
        let route = Route::new(&Arc::new(()), method, "/things", "things:touch", Access::Open, 204, handler);
        let route = if text.contains("upload") { route.no_dry_run("its bytes are the change") } else { route };
        let mut query = Query::parse(text).unwrap();
        let shown = match scope(&route, &mut query) {
            Ok(scope) => {
                let left: Vec<_> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let next = query.with("marker", "m");
                format!("dry={} as_of={:?} left={left:?} next={next}", scope.dry.is_some(), scope.as_of)
            }
            Err(fault) => format!("{:?} {}", fault.kind, fault.message),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn the_handler_never_sees_what_the_gateway_reads() {
        check(
            Method::POST,
            "a=1&dry_run=true",
            expect![[r#"dry=true as_of=None left=["a=1"] next=a=1&dry_run=true&marker=m"#]],
        );
        check(Method::DELETE, "dry_run=0", expect![["dry=false as_of=None left=[] next=dry_run=0&marker=m"]]);
        check(
            Method::GET,
            "as_of=rev:7",
            expect![["dry=false as_of=Some(Rev(Rev(7))) left=[] next=as_of=rev%3A7&marker=m"]],
        );
        check(
            Method::GET,
            "as_of=1970-01-01T00:00:01Z",
            expect![[
                "dry=false as_of=Some(Time(Timestamp(1000000))) left=[] next=as_of=1970-01-01T00%3A00%3A01Z&marker=m"
            ]],
        );
    }

    #[test]
    fn a_moment_is_a_revision_or_a_time() {
        for (text, expected) in [
            ("rev:7", Some(AsOf::Rev(Rev(7)))),
            ("7", Some(AsOf::Rev(Rev(7)))),
            ("1970-01-01T00:00:01Z", Some(AsOf::Time(Timestamp(1_000_000)))),
            ("1970-01-01 00:00:01", Some(AsOf::Time(Timestamp(1_000_000)))),
            ("1970-01-01T02:00:01+02:00", Some(AsOf::Time(Timestamp(1_000_000)))),
            ("1970-01-01T02:00:01 02:00", Some(AsOf::Time(Timestamp(1_000_000)))),
            ("99999999999999999999", None),
            ("rev:", None),
            ("-1", None),
            ("yesterday", None),
        ] {
            assert_eq!(moment(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_route_without_a_past_says_why() {
        let route = Route::new(&Arc::new(()), Method::GET, "/things", "things:list", Access::Open, 200, handler)
            .no_past("things are not written down");
        let fault = scope(&route, &mut Query::parse("as_of=1").unwrap()).err().unwrap();
        assert_eq!(fault.message, "things:list does not answer as_of: things are not written down.");
    }

    #[test]
    fn a_refusal_names_the_value() {
        for (method, text, expected) in [
            (Method::GET, "dry_run=true", expect![["Invalid dry_run='true': things:touch changes nothing."]]),
            (Method::POST, "dry_run=maybe", expect![["Invalid Invalid value for dry_run: 'maybe' is not a boolean."]]),
            (Method::POST, "dry_run=1&dry_run=0", expect![["Invalid The query parameter dry_run may be given once."]]),
            (
                Method::PUT,
                "as_of=rev:1",
                expect![["Invalid as_of='rev:1' asks for the past, and things:touch changes the present."]],
            ),
            (
                Method::PUT,
                "dry_run=1&upload",
                expect![["Invalid things:touch has no dry run: its bytes are the change."]],
            ),
            (
                Method::GET,
                "as_of=rev:-1",
                expect![[
                    "Invalid Invalid value for as_of: 'rev:-1' is neither a time such as 2026-01-31T12:00:00Z nor a revision such as rev:1234."
                ]],
            ),
            (
                Method::GET,
                "as_of=",
                expect![[
                    "Invalid Invalid value for as_of: '' is neither a time such as 2026-01-31T12:00:00Z nor a revision such as rev:1234."
                ]],
            ),
        ] {
            check(method, text, expected);
        }
    }
}
