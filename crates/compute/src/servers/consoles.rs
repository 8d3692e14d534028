//! Consoles: the log, and one-time tokens that open a websocket to VNC or to the serial line.
//!
//! A token is 32 random bytes; the store keeps its hash, what it opens, and until when. Whoever comes with it first
//! has used it up. The bridge only copies bytes between the websocket and the host's stream.

use super::{Full, find_for};
use crate::input::{self, Fields};
use crate::{Ask, Compute, ask};
use agent_api::BoxStream;
use base::{Fault, HostName, Result, ServerId, Timestamp};
use futures::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use rest::{Access, Call, Envelope, Method, Reply, Route, Service, Version, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use store::{Document, Query, Reader, Tx};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// How long a token waits for its use.
const TOKEN_S: i64 = 600;
/// The most bytes of a console log in one answer: Nova's.
const LOG_BYTES: u64 = 100 << 10;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConsoleToken {
    /// SHA-256 of the token, hex.
    pub id: String,
    pub project_id: String,
    pub server_id: ServerId,
    pub host: HostName,
    pub serial: bool,
    pub expires: Timestamp,
}

impl Document for ConsoleToken {
    const KIND: &'static str = "console_token";
    const HISTORY: bool = false;
    const TRASH: bool = false;
    const UNDO: bool = false;
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> &str {
        &self.project_id
    }
}

pub fn routes(state: &Arc<Compute>) -> Vec<Route> {
    let rule = Access::Rule("os_compute_api:os-remote-consoles");
    vec![
        Route::new(
            state,
            Method::POST,
            "/servers/{server_id}/remote-consoles",
            "remote_consoles:create",
            rule,
            200,
            create,
        )
        .since(2, 6)
        .no_dry_run("the address of a console is the answer itself")
        .no_undo("a console's address is used once or expires")
        .no_repeat("the address of a console can be used once"),
    ]
}

/// The service in which tokens are spent: `GET /compute/console?token=…`.
pub fn bridge_service(state: &Arc<Compute>, more: Vec<Route>) -> Service {
    let mut routes = vec![
        Route::new(state, Method::GET, "/console", "console:open", Access::Open, 101, open)
            .no_past("a console is a connection to the guest of now"),
    ];
    routes.extend(more);
    Service {
        name: "compute-root",
        prefix: "/compute",
        envelope: Envelope::Compute,
        microversions: None,
        policy: state.policy.clone(),
        routes,
    }
}

/// The host of a server that has a console.
fn place(reader: &mut Reader, ask: &Ask, rule: &str) -> Result<(Full, HostName)> {
    let full = find_for(reader, ask, ask.param("server_id"), rule)?;
    let host = full.server.host.clone().filter(|_| full.observed.is_some());
    let host = host.ok_or_else(|| Fault::conflict(format!("Instance {} is not ready", full.server.id)))?;
    Ok((full, host))
}

pub async fn output(state: &Arc<Compute>, ask: &Ask, rule: &'static str, value: &Value) -> Result<Reply> {
    let mut lines = None;
    if !value.is_null() {
        let mut fields = Fields::of("os-getConsoleOutput", value)?;
        if let Some(length) = fields.opt("length").filter(|length| !length.is_null()) {
            let length = input::integer("length", length, -1, 1 << 31)?;
            lines = usize::try_from(length).ok();
        }
        fields.finish()?;
    }
    let (full, host) = state.read(ask, move |reader, ask| place(reader, ask, rule)).await?;
    let bytes = state.consoles.console_log(&host, &full.server.id, LOG_BYTES).await?;
    let text: String =
        String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control() || "\n\t\r".contains(*c)).collect();
    let text = match lines {
        None => text,
        Some(lines) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
    };
    Reply::json(200, &json!({"output": text}))
}

/// Makes a token and the address where it is spent.
async fn token(state: &Arc<Compute>, ask: &Ask, rule: &'static str, serial: bool) -> Result<String> {
    let token = state.env.secret_hex(32);
    let id = hash(&token);
    state
        .write(ask, move |tx, ask| {
            let (full, host) = place(tx, ask, rule)?;
            if full.state().power_state != 1 && full.state().power_state != 3 {
                return Err(Fault::conflict(format!("Instance {} is not ready", full.server.id)));
            }
            let expires = tx.now().plus_s(TOKEN_S);
            let (project_id, server_id) = (full.server.project_id.to_string(), full.server.id.clone());
            tx.create(&ConsoleToken { id: id.clone(), project_id, server_id, host, serial, expires })?;
            Ok(())
        })
        .await?;
    let base = if serial { ask.base_url.replacen("http", "ws", 1) } else { ask.base_url.clone() };
    Ok(format!("{base}/compute/console?token={token}"))
}

fn hash(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unavailable(kind: &str) -> Fault {
    Fault::invalid(format!("Unavailable console type {kind}: this cloud has novnc and serial."))
}

/// The actions that were there until 2.5.
pub async fn legacy(state: &Arc<Compute>, ask: &Ask, rule: &'static str, name: &str, value: &Value) -> Result<Reply> {
    let known: &[&str] = match name {
        "os-getVNCConsole" => &["novnc", "xvpvnc"],
        "os-getSerialConsole" => &["serial"],
        "os-getSPICEConsole" => &["spice-html5"],
        _ => &["rdp-html5"],
    };
    let mut fields = Fields::of("type", value)?;
    let kind = fields.need("type")?;
    let text = kind.as_str().filter(|kind| known.contains(kind));
    let Some(text) = text else {
        return Err(input::refuse(
            "type",
            kind,
            format!("{} is not one of {}", input::repr(kind), input::repr(&json!(known))),
        ));
    };
    fields.finish()?;
    if !matches!(text, "novnc" | "serial") {
        state.read(ask, move |reader, ask| find_for(reader, ask, ask.param("server_id"), rule).map(|_| ())).await?;
        return Err(unavailable(text));
    }
    let url = token(state, ask, rule, text == "serial").await?;
    Reply::json(200, &json!({"console": {"type": text, "url": url}}))
}

async fn create(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let (ask, body) = ask::read(&mut call, &[]).await?;
    let mut outer = Fields::body(&body)?;
    let mut fields = outer.object("remote_console")?;
    outer.finish()?;
    let protocol = input::text("protocol", fields.need("protocol")?, 1, 32)?;
    let kind = input::text("type", fields.need("type")?, 1, 32)?;
    fields.finish()?;
    let mks = ask.version >= Version(2, 8);
    match (protocol.as_str(), kind.as_str()) {
        ("vnc", "novnc") | ("serial", "serial") => {}
        ("vnc", "xvpvnc") | ("spice", "spice-html5") | ("rdp", "rdp-html5") => return Err(unavailable(&kind)),
        ("mks", "webmks") if mks => return Err(unavailable(&kind)),
        _ => {
            let why = format!("'{kind}' is not a console type of the protocol '{protocol}'");
            return Err(input::refuse("type", &json!(kind), why));
        }
    }
    let url = token(&state, &ask, ask.rule, kind == "serial").await?;
    Reply::json(200, &json!({"remote_console": {"protocol": protocol, "type": kind, "url": url}}))
}

/// Spends a token.
async fn open(state: Arc<Compute>, mut call: Call) -> Result<Reply> {
    let refused = || Fault::new(base::FaultKind::Forbidden, "The token has expired, has been used, or is none.");
    let token = call.query.get("token").filter(|token| token.len() == 64).map(hash).ok_or_else(refused)?;
    let key = call.header("sec-websocket-key").map(|key| derive_accept_key(key.as_bytes()));
    let (Some(accept), Some(upgrade)) = (key, call.upgrade()) else {
        return Err(Fault::invalid("This address speaks websocket: connect with a console client.").with_status(426));
    };
    let binary =
        call.header("sec-websocket-protocol").is_some_and(|list| list.split(',').any(|one| one.trim() == "binary"));
    let now = call.now;
    let spent = state
        .store
        .write(store::Cause::new("console", call.request_id.clone(), "console:open"), move |tx| {
            let Some(known) = tx.get::<ConsoleToken>(&token)? else { return Ok(None) };
            tx.delete::<ConsoleToken>(&token)?;
            Ok(Some(known.doc))
        })
        .await?
        .value;
    let known = spent.filter(|token| token.expires >= now).ok_or_else(refused)?;
    let stream = state.consoles.console(&known.host, &known.server_id, known.serial).await?;
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => bridge(TokioIo::new(upgraded), stream).await,
            Err(error) => tracing::debug!("a console's client went away: {error}"),
        }
    });
    let reply = Reply::empty(101)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(if binary { reply.header(header::SEC_WEBSOCKET_PROTOCOL, "binary") } else { reply })
}

/// Copies until either side ends.
async fn bridge<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(socket: S, stream: BoxStream) {
    let config = WebSocketConfig::default().max_message_size(Some(1 << 20)).max_frame_size(Some(1 << 20));
    let (mut to_client, mut from_client) =
        WebSocketStream::from_raw_socket(socket, Role::Server, Some(config)).await.split();
    let (mut from_guest, mut to_guest) = tokio::io::split(stream);
    let inward = async {
        while let Some(Ok(message)) = from_client.next().await {
            let written = match message {
                Message::Binary(bytes) => to_guest.write_all(&bytes).await,
                Message::Text(text) => to_guest.write_all(text.as_bytes()).await,
                Message::Close(_) => break,
                _ => Ok(()),
            };
            if written.is_err() {
                break;
            }
        }
    };
    let outward = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from_guest.read(&mut buffer).await {
            if to_client.send(Message::Binary(buffer[..read].to_vec().into())).await.is_err() {
                break;
            }
        }
        // The client may be gone already.
        to_client.close().await.ok();
    };
    tokio::select! {
        _ = inward => {}
        _ = outward => {}
    }
}

/// Tokens that nobody came with in time.
pub async fn expired(state: &Compute) -> Result<Vec<String>> {
    let now = state.env.now();
    let tokens = state.store.list::<ConsoleToken>(Query::all().limit(500)).await?;
    Ok(tokens.iter().filter(|token| token.expires < now).map(|token| token.id.clone()).collect())
}

pub fn forget(tx: &mut Tx, tokens: &[String]) -> Result<()> {
    for token in tokens {
        if tx.get::<ConsoleToken>(token)?.is_some() {
            tx.delete::<ConsoleToken>(token)?;
        }
    }
    Ok(())
}
