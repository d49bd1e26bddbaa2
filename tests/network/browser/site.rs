//! A website with the features that browsers use: an image, a form, a download, a WebSocket, and a
//! redirect to another site.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The heading of the page.
pub const HEADING: &str = "An onion service";
/// The size of the download in bytes.
pub const DOWNLOAD: usize = 1_500_000;

const PAGE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Good</title>\
    <h1>An onion service</h1><img id=image src=/image.svg width=120 height=80 alt=image>\
    <form method=post action=/form><input name=word id=word><button id=send>Send</button></form>\
    <a id=download href=/download download>Download</a>";
const IMAGE: &str = "<svg xmlns='http://www.w3.org/2000/svg' width='120' height='80'>\
    <rect width='120' height='80' fill='#6a35a8'/></svg>";

/// Serves the site as long as the runtime exists, and returns its address.
pub fn start(runtime: &Runtime) -> Result<SocketAddr> {
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr()?;
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(respond))
                    .with_upgrades(),
            );
        }
    });
    Ok(address)
}

async fn respond(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let build = |content_type: &str, body: Vec<u8>| {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        let content_type = content_type.parse().expect("a header value");
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    };
    Ok(match (request.method(), path.as_str()) {
        (&Method::GET, "/") => build("text/html", PAGE.into()),
        (&Method::GET, "/image.svg") => build("image/svg+xml", IMAGE.into()),
        (&Method::POST, "/form") => {
            let body = request.into_body().collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let text = String::from_utf8_lossy(&body);
            build("text/html", format!("<p id=got>{text}</p>").into())
        }
        (&Method::GET, "/download") => {
            let mut response = build("application/octet-stream", vec![b'd'; DOWNLOAD]);
            let name = "attachment; filename=file.bin"
                .parse()
                .expect("a header value");
            response.headers_mut().insert(CONTENT_DISPOSITION, name);
            response
        }
        // Redirects to the address in the query.
        (&Method::GET, "/away") => {
            let mut response = build("text/plain", Vec::new());
            *response.status_mut() = StatusCode::FOUND;
            let to = request.uri().query().unwrap_or("/");
            let to = to.parse().expect("a header value");
            response.headers_mut().insert(LOCATION, to);
            response
        }
        (&Method::GET, "/socket") => match request.headers().get("sec-websocket-key") {
            Some(key) => {
                let accept = derive_accept_key(key.as_bytes());
                tokio::spawn(echo(hyper::upgrade::on(&mut request)));
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert(CONNECTION, "Upgrade".parse().expect("a header value"));
                headers.insert(UPGRADE, "websocket".parse().expect("a header value"));
                headers.insert(
                    "sec-websocket-accept",
                    accept.parse().expect("a header value"),
                );
                response
            }
            None => build("text/plain", b"this is a WebSocket".to_vec()),
        },
        _ => {
            let mut response = build("text/plain", b"no such page".to_vec());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    })
}

/// Sends every message back.
async fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    let Ok(stream) = upgrade.await else { return };
    let stream = TokioIo::new(stream);
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() || socket.send(message).await.is_err() {
            return;
        }
    }
}
