//! Many clients that send random or damaged messages.

use tokio::task::JoinSet;

use super::client::{Client, End, ListenAddr};
use super::hex::show;
use super::random::Random;

/// How many clients run, and what they may do.
pub struct Crowd {
    /// How many clients connect in total.
    pub clients: usize,
    /// How many of them are connected at a time.
    pub at_once: usize,
    /// Whether some clients close their sending side before they read.
    pub half_close: bool,
}

/// Runs clients that each send one of these messages in two parts. Some then leave at once; all others
/// have to see their connection end.
pub async fn send_nonsense(
    address: &ListenAddr,
    crowd: Crowd,
    random: &mut Random,
    mut message: impl FnMut(&mut Random) -> Vec<u8>,
) {
    let mut running = JoinSet::new();
    for number in 0..crowd.clients {
        if running.len() >= crowd.at_once {
            let ended = running.join_next().await.expect("running clients");
            ended.expect("no panic");
        }
        let sent = message(random);
        let cut = random.below(sent.len() + 1);
        let behaviour = random.below(3);
        let address = address.clone();
        running.spawn(async move {
            let mut client = Client::connect(&address).await;
            let (first, second) = sent.split_at(cut);
            let all_sent =
                client.try_send(first).await.is_ok() && client.try_send(second).await.is_ok();
            match behaviour {
                0 => return,
                // What was sent may be a request, which is then answered.
                1 if crowd.half_close && all_sent => client.finish().await,
                _ => {}
            }
            let (got, end) = client.read_to_end().await;
            let exchange = format!("sent {}, got {}", show(&sent), show(&got));
            assert_ne!(end, End::Open, "client {number}: {exchange}");
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no panic");
    }
}
