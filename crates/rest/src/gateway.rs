//! One listener for all services: route, authenticate, negotiate, run, answer, log.

use crate::call::Params;
use crate::route::Access;
use crate::route::Handler;
use crate::{Answer, Begun, Effects, Keyed, Repeats};
use crate::{Body, Call, Caller, Envelope, Metrics, PLAN_RULE, Query, Reply, Route, Service, Tokens, Version};
use crate::{plan, repeat, wish};
use base::{Env, Fault, FaultKind, RequestId, Result};
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use policy::{Decision, Policy, Target};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use store::Scope;

/// The longest path that is looked at, in bytes.
const PATH_BYTES: usize = 4096;
/// A token that is longer is not one.
const TOKEN_BYTES: usize = 4096;
/// A body up to this is taken in before the request is looked at; see [`at_hand`].
const SMALL_BODY_BYTES: u64 = 64 << 10;

pub struct GatewayOptions {
    /// What the catalog says, such as `http://127.0.0.1:8774`; no trailing slash. Links use it.
    pub public_url: String,
    pub env: Env,
    /// Where a 401 says that tokens come from.
    pub identity_path: &'static str,
}

/// All services behind one address. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

/// For what a gateway's own handlers hold.
pub struct WeakGateway(Weak<Inner>);

impl WeakGateway {
    pub fn upgrade(&self) -> Option<Gateway> {
        self.0.upgrade().map(Gateway)
    }
}

struct Inner {
    options: GatewayOptions,
    /// Where `as_of` is looked up before a handler runs; see [`Gateway::with_history`].
    history: Option<store::Store>,
    tokens: Arc<dyn Tokens>,
    services: Vec<Service>,
    paths: matchit::Router<Vec<(usize, usize)>>,
    /// Longest prefix first, to name the service of a path that nothing serves.
    prefixes: Vec<(&'static str, usize)>,
    metrics: Metrics,
    effects: OnceLock<Arc<dyn Effects>>,
    repeats: OnceLock<Arc<dyn Repeats>>,
}

/// What a log line and the metrics need to know once the answer stands.
struct Outcome {
    service: &'static str,
    operation: &'static str,
    envelope: Envelope,
    version: Option<(crate::Microversions, Version)>,
    caller: Option<Arc<Caller>>,
}

impl Gateway {
    /// Joins services. Bug when two routes cannot be told apart.
    pub fn new(options: GatewayOptions, tokens: Arc<dyn Tokens>, services: Vec<Service>) -> Result<Gateway> {
        let mut by_path: HashMap<String, Vec<(usize, usize)>> = HashMap::new();
        for (s, service) in services.iter().enumerate() {
            for (r, route) in service.routes.iter().enumerate() {
                let path = format!("{}{}", service.prefix, route.path);
                by_path.entry(path).or_default().push((s, r));
            }
        }
        let mut paths = matchit::Router::new();
        for (path, routes) in by_path {
            let path = if path.is_empty() { "/".to_owned() } else { path };
            paths.insert(path.clone(), routes).map_err(|error| Fault::bug(format!("route {path}: {error}")))?;
        }
        let mut prefixes: Vec<_> = services.iter().enumerate().map(|(s, service)| (service.prefix, s)).collect();
        prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        let (metrics, effects, repeats) = (Metrics::default(), OnceLock::new(), OnceLock::new());
        let inner = Inner { options, history: None, tokens, services, paths, prefixes, metrics, effects, repeats };
        Ok(Gateway(Arc::new(inner)))
    }

    /// Looks every `as_of` up before its handler runs: one outside of the history is refused, also by handlers that never
    /// ask the store, and what a handler computes from the present time is computed from the time that was asked for.
    /// Call it before the gateway is cloned.
    pub fn with_history(mut self, store: store::Store) -> Result<Gateway> {
        let inner = Arc::get_mut(&mut self.0).ok_or_else(|| Fault::bug("the gateway is in use already"))?;
        inner.history = Some(store);
        Ok(self)
    }

    pub fn downgrade(&self) -> WeakGateway {
        WeakGateway(Arc::downgrade(&self.0))
    }

    pub fn services(&self) -> &[Service] {
        &self.0.services
    }

    /// Says what tells of a dry run what its documents do not. Once; later calls are ignored.
    pub fn set_effects(&self, effects: Arc<dyn Effects>) {
        let _ = self.0.effects.set(effects);
    }

    /// Says where the keys of repeated requests are kept. Once; without it such keys mean nothing.
    pub fn set_repeats(&self, repeats: Arc<dyn Repeats>) {
        let _ = self.0.repeats.set(repeats);
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Answers a request. Never fails: what goes wrong is an answer, too.
    pub async fn handle(&self, mut request: Request<Body>) -> Response<Body> {
        let inner = &*self.0;
        let began = inner.options.env.now();
        let request_id = RequestId::new(format!("req-{}", inner.options.env.uuid()));
        let upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
        let (parts, body) = request.into_parts();
        let path = normal_path(parts.uri.path());
        let head = parts.method == Method::HEAD;
        let mut outcome = inner.outcome_of(&path);
        let result = match at_hand(&parts.headers, body).await {
            Ok(body) => {
                let call = Incoming { parts: &parts, path: &path, body, upgrade, request_id: &request_id };
                inner.serve(call, &mut outcome).await
            }
            Err(fault) => Err(fault),
        };
        let mut response = match result {
            Ok(reply) => respond(reply),
            Err(fault) => inner.refuse(&fault, &outcome, &request_id, &parts.headers),
        };
        let status = response.status().as_u16();
        let headers = response.headers_mut();
        stamp(headers, &request_id, &outcome);
        let micros = (inner.options.env.now().micros() - began.micros()).max(0) as u64;
        inner.metrics.record(outcome.service, outcome.operation, status, micros);
        let caller = outcome.caller.as_deref();
        tracing::info!(
            target: "request",
            id = %request_id,
            method = %parts.method,
            path = %parts.uri.path(),
            service = outcome.service,
            operation = outcome.operation,
            status,
            micros,
            user = caller.map_or("-", |caller| caller.credentials.user_id.as_str()),
            project = caller.and_then(|caller| caller.credentials.project_id.as_deref()).unwrap_or("-"),
        );
        if head {
            *response.body_mut() = Body::empty();
        }
        response
    }
}

struct Incoming<'a> {
    parts: &'a http::request::Parts,
    path: &'a str,
    body: Body,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
    request_id: &'a RequestId,
}

impl Inner {
    fn outcome_of(&self, path: &str) -> Outcome {
        let inside =
            |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let service = self.prefixes.iter().find(|(prefix, _)| inside(prefix)).map(|(_, s)| &self.services[*s]);
        Outcome {
            service: service.map_or("none", |service| service.name),
            operation: "none",
            envelope: service.map_or(Envelope::Nubo, |service| service.envelope),
            version: None,
            caller: None,
        }
    }

    async fn serve(&self, incoming: Incoming<'_>, outcome: &mut Outcome) -> Result<Reply> {
        let Incoming { parts, path, body, upgrade, request_id } = incoming;
        if parts.uri.path().len() > PATH_BYTES {
            return Err(Fault::new(FaultKind::TooLarge, "The path is too long.").with_status(414));
        }
        let found = self.paths.at(path).ok();
        let candidates: Vec<(&Service, &Route)> = found
            .iter()
            .flat_map(|found| found.value.iter())
            .map(|(s, r)| (&self.services[*s], &self.services[*s].routes[*r]))
            .collect();
        let open =
            candidates.iter().any(|(_, route)| method_fits(route, &parts.method) && route.access == Access::Open);
        let caller = self.caller(&parts.headers, open).await?;
        outcome.caller = Some(caller.clone());
        let Some(service) = candidates.first().map(|(service, _)| *service) else {
            return Err(Fault::not_found("The resource could not be found."));
        };
        outcome.envelope = service.envelope;
        outcome.service = service.name;
        if !open {
            self.tokens.admit(&caller, service, &parts.method, path).map_err(plain)?;
        }
        let version = match service.microversions {
            Some(range) => {
                outcome.version = Some((range, range.min));
                let version = range.negotiate(&parts.headers)?;
                outcome.version = Some((range, version));
                Some(version)
            }
            None => None,
        };
        let route = choose(&candidates, &parts.method, version)?;
        outcome.operation = route.operation;
        let mut params = Vec::new();
        for (name, value) in found.iter().flat_map(|found| found.params.iter()) {
            params.push((placeholder(service, route, name), decode(value)?));
        }
        let mut query = Query::parse(parts.uri.query().unwrap_or(""))?;
        let mut scope = wish::scope(route, &mut query)?;
        let now = self.now(&mut scope).await?;
        let call = Call {
            request_id: request_id.clone(),
            operation: route.operation,
            rule: match route.access {
                Access::Open => "",
                Access::Rule(rule) => rule,
            },
            caller: caller.clone(),
            version: version.unwrap_or(Version(0, 0)),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            base_url: self.options.public_url.clone(),
            prefix: service.prefix,
            headers: parts.headers.clone(),
            query,
            params: Params(params),
            policy: service.policy.clone(),
            now,
            peer: parts.extensions.get::<crate::Peer>().map(|peer| peer.0),
            body: Mutex::new(Some(body)),
            upgrade,
        };
        let plan = scope.dry.clone();
        let key = repeat::key(route, &parts.headers, &scope)?;
        let reply = match key.zip(self.repeats.get()) {
            Some((key, repeats)) => self.once(&**repeats, key, parts, service.envelope, route, call, scope).await?,
            None => run(route.handler.clone(), call, scope).await?,
        };
        match plan {
            // What a handler answers itself instead of failing is an answer of the dry run, too.
            Some(plan) if reply.status < 400 => {
                if let Some(effects) = self.effects.get() {
                    effects.notes(&plan.differences()).await?.into_iter().for_each(|note| plan.note(note));
                }
                plan::reply(route.operation, reply.status, &plan, &caller, self.reads_plans(&caller))
            }
            _ => Ok(reply),
        }
    }

    /// The time of a request: that of the moment it asks for, which then stands in its scope as a revision.
    async fn now(&self, scope: &mut Scope) -> Result<base::Timestamp> {
        let (Some(at), Some(store)) = (scope.as_of, &self.history) else { return Ok(self.options.env.now()) };
        let moment = store.moment(at).await?;
        scope.as_of = Some(store::AsOf::Rev(moment.rev));
        Ok(moment.at)
    }

    /// Runs the handler unless a request with the same key has been served.
    #[allow(clippy::too_many_arguments)]
    async fn once(
        &self,
        repeats: &dyn Repeats,
        key: String,
        parts: &http::request::Parts,
        envelope: Envelope,
        route: &Route,
        mut call: Call,
        mut scope: Scope,
    ) -> Result<Reply> {
        let body = call.bytes(base::limits::BODY_BYTES).await?;
        call.put_body(Body::from(body.clone()));
        let keyed = Keyed {
            key,
            project: call.caller.project_id().map(|id| id.to_string()).unwrap_or_default(),
            user: call.caller.user_id().to_string(),
            method: parts.method.clone(),
            path: call.path.clone(),
            meaning: format!("{} {}", call.version, parts.uri.query().unwrap_or("")),
            body,
            request_id: call.request_id.clone(),
        };
        let first = match repeats.begin(keyed).await? {
            Begun::Done(answer, first) => return Ok(answer.repeated(&first)),
            Begun::First(first) => first,
        };
        scope.along = Some(first.along());
        let (handler, request_id) = (route.handler.clone(), call.request_id.clone());
        let work = async move {
            match run(handler, call, scope).await {
                Ok(reply) => {
                    let (answer, reply) = Answer::of(reply).await?;
                    if let Some(answer) = answer {
                        first.finish(answer).await;
                    }
                    Ok(reply)
                }
                Err(fault) => {
                    let status = envelope.status(&fault);
                    // What failed on our side is not an answer to give again.
                    if status < 500 {
                        let body = envelope.body(&fault, &request_id).to_string().into();
                        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
                        first.finish(Answer { status, headers, body }).await;
                    }
                    Err(fault)
                }
            }
        };
        let done = tokio::spawn(work).await;
        done.map_err(|error| Fault::unavailable("The service is stopping.").because(error))?
    }

    /// Whether the caller may read plans whole. The rule is the own service's; without it nobody may.
    fn reads_plans(&self, caller: &Caller) -> bool {
        let own = self.services.iter().find(|service| service.envelope == Envelope::Nubo);
        let decision = |policy: &Policy| policy.check(PLAN_RULE, &caller.credentials, &Target::default());
        own.is_some_and(|own| matches!(decision(&own.policy), Decision::Allowed))
    }

    /// The caller of the request; anonymous only where `open`.
    async fn caller(&self, headers: &HeaderMap, open: bool) -> Result<Arc<Caller>> {
        let Some(token) = headers.get("x-auth-token") else {
            return if open { Ok(Arc::new(Caller::anonymous())) } else { Err(unauthenticated()) };
        };
        let token = token.to_str().ok().filter(|token| token.len() <= TOKEN_BYTES && !token.is_empty());
        let verified = match token {
            Some(token) => self.tokens.verify(token).await,
            None => Err(unauthenticated()),
        };
        match verified {
            Err(fault) if open && fault.kind == FaultKind::Unauthenticated => Ok(Arc::new(Caller::anonymous())),
            other => other.map_err(plain),
        }
    }

    fn refuse(&self, fault: &Fault, outcome: &Outcome, id: &RequestId, headers: &HeaderMap) -> Response<Body> {
        let status = outcome.envelope.status(fault);
        if fault.kind == FaultKind::Bug {
            tracing::error!(%id, operation = outcome.operation, "{}", fault.chain());
        } else if fault.source.is_some() {
            tracing::debug!(%id, operation = outcome.operation, "{}", fault.chain());
        }
        let body = outcome.envelope.body(fault, id);
        let mut reply = Reply::json_bytes(status, body.to_string());
        if status == 401 {
            let uri = format!("Keystone uri=\"{}{}\"", self.options.public_url, self.options.identity_path);
            reply = reply.header(header::WWW_AUTHENTICATE, uri);
        }
        if fault.kind == FaultKind::MethodNotAllowed
            && let Some(allow) = &fault.name
        {
            reply = reply.header(header::ALLOW, allow);
        }
        if let Some(seconds) = fault.retry_after_s {
            reply = reply.header(header::RETRY_AFTER, seconds.to_string());
        }
        // A body that nobody read would otherwise be drained before the connection can serve again.
        let unread = headers.contains_key(header::TRANSFER_ENCODING)
            || headers.contains_key(header::EXPECT)
            || announced(headers) > SMALL_BODY_BYTES;
        if unread {
            reply = reply.header(header::CONNECTION, "close");
        }
        respond(reply)
    }
}

/// Runs the handler in the request's scope.
async fn run(handler: Handler, call: Call, scope: Scope) -> Result<Reply> {
    let operation = call.operation;
    // Called inside the scope: a handler may look at it before its future is polled.
    let handler = store::scope::run(scope, async move { handler(call).await });
    match AssertUnwindSafe(handler).catch_unwind().await {
        Ok(result) => result,
        Err(_) => Err(Fault::bug(format!("the handler of {operation} panicked"))),
    }
}

/// A trailing slash names the same resource.
fn normal_path(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() }
}

fn announced(headers: &HeaderMap) -> u64 {
    headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

/// Takes in a small body. A request that is refused without a look at its body would otherwise race with it: whatever
/// arrives after the answer makes the server close the connection on which the client already sends its next request.
async fn at_hand(headers: &HeaderMap, body: Body) -> Result<Body> {
    if !(1..=SMALL_BODY_BYTES).contains(&announced(headers)) || headers.contains_key(header::EXPECT) {
        return Ok(body);
    }
    let whole = http_body_util::BodyExt::collect(body).await;
    let whole = whole.map_err(|error| Fault::invalid(format!("The request body broke off: {error}.")))?;
    Ok(Body::from(whole.to_bytes()))
}

fn method_fits(route: &Route, method: &Method) -> bool {
    route.method == *method || (*method == Method::HEAD && route.method == Method::GET)
}

fn choose<'a>(candidates: &[(&'a Service, &'a Route)], method: &Method, version: Option<Version>) -> Result<&'a Route> {
    let exact = candidates.iter().find(|(_, route)| route.method == *method && route.speaks(version));
    let fits = exact.or_else(|| candidates.iter().find(|(_, r)| method_fits(r, method) && r.speaks(version)));
    if let Some((_, route)) = fits {
        return Ok(route);
    }
    let spoken: Vec<_> = candidates.iter().filter(|(_, route)| route.speaks(version)).collect();
    if spoken.is_empty() || candidates.iter().any(|(_, route)| method_fits(route, method)) {
        return Err(Fault::not_found("The resource could not be found."));
    }
    let mut allow: Vec<&str> = spoken.iter().map(|(_, route)| route.method.as_str()).collect();
    allow.sort_unstable();
    allow.dedup();
    let message = format!("The method {method} is not allowed for this resource; allowed: {}.", allow.join(", "));
    Err(Fault::new(FaultKind::MethodNotAllowed, message).named(allow.join(", ")))
}

/// The static name of a placeholder, found in the route's own path.
fn placeholder(service: &Service, route: &Route, name: &str) -> &'static str {
    let names = |path: &'static str| path.split(['{', '}']).skip(1).step_by(2).map(|name| name.trim_start_matches('*'));
    names(service.prefix).chain(names(route.path)).find(|known| *known == name).unwrap_or("")
}

fn decode(value: &str) -> Result<String> {
    let text = percent_encoding::percent_decode_str(value).decode_utf8();
    let text = text.map_err(|_| Fault::invalid("The path is not UTF-8."))?;
    base::limits::text("path", &text, 1024)?;
    Ok(text.into_owned())
}

fn unauthenticated() -> Fault {
    Fault::unauthenticated("The request you have made requires authentication.")
}

/// Why a token does not hold is for the log.
fn plain(fault: Fault) -> Fault {
    if fault.kind == FaultKind::Unauthenticated { unauthenticated().because(fault) } else { fault }
}

fn respond(reply: Reply) -> Response<Body> {
    let mut response = Response::new(reply.body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        response.headers_mut().append(name, value);
    }
    response
}

fn stamp(headers: &mut HeaderMap, request_id: &RequestId, outcome: &Outcome) {
    let mut set = |name: &'static str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    set("x-openstack-request-id", request_id);
    let Some((range, version)) = outcome.version else { return };
    if outcome.service == "compute" {
        set("x-compute-request-id", request_id);
    }
    set("openstack-api-version", &format!("{} {version}", range.service_type));
    let mut vary = "OpenStack-API-Version".to_owned();
    if let Some(legacy) = range.legacy_header {
        set(legacy, &version.to_string());
        vary.push_str(", ");
        vary.push_str(legacy);
    }
    set("vary", &vary);
}
