use std::collections::VecDeque;
use std::future::poll_fn;

use super::*;

const LARGE: u32 = 100 << 10;

/// A body of given frames; `None` is where the peer stops for now.
struct Frames(VecDeque<Option<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.get_mut().0.pop_front() {
            Some(Some(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(None) => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

fn message(bytes: u32) -> Vec<u8> {
    let mut message = vec![0];
    message.extend(bytes.to_be_bytes());
    message.resize(PREFIX_BYTES + bytes as usize, 7);
    message
}

struct Room {
    connection: Arc<Semaphore>,
    listener: Arc<Semaphore>,
}

impl Room {
    fn new(bytes: u32) -> Self {
        Self {
            connection: Arc::new(Semaphore::new(bytes as usize)),
            listener: Arc::new(Semaphore::new(bytes as usize)),
        }
    }

    fn body(&self, frames: impl IntoIterator<Item = Option<Bytes>>) -> BoundedRequest<Frames> {
        let room = RequestRoom::new(self.connection.clone(), self.listener.clone(), 1 << 20, Duration::from_secs(30));
        BoundedRequest::new(Frames(frames.into_iter().collect()), room)
    }

    fn left(&self) -> usize {
        assert_eq!(self.connection.available_permits(), self.listener.available_permits());
        self.listener.available_permits()
    }
}

async fn next(body: &mut BoundedRequest<Frames>) -> Option<Result<Bytes, tonic::Code>> {
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(|status| status.code()))
}

/// Cuts bytes into frames of this size.
fn frames(bytes: &[u8], size: usize) -> Vec<Option<Bytes>> {
    bytes.chunks(size).map(|chunk| Some(Bytes::copy_from_slice(chunk))).collect()
}

#[tokio::test]
async fn everything_passes_unchanged_however_it_is_cut() {
    let sizes = [0, 3, LARGE, 0, SMALL_BYTES, SMALL_BYTES + 1, 1, LARGE, LARGE];
    let sent: Vec<u8> = sizes.into_iter().flat_map(message).collect();
    for size in [1, 4, 5, 6, 1000, 64 << 10, sent.len()] {
        let room = Room::new(LARGE);
        let mut body = room.body(frames(&sent, size));
        let mut passed = Vec::new();
        while let Some(data) = next(&mut body).await {
            passed.extend_from_slice(&data.unwrap());
        }
        assert!(passed == sent, "in frames of {size} bytes");
        assert_eq!(room.left(), LARGE as usize);
    }
}

#[tokio::test]
async fn a_large_message_waits_for_room_and_small_ones_do_not() {
    let room = Room::new(LARGE);
    let large = message(LARGE);
    let mut first = room.body([Some(Bytes::copy_from_slice(&large[..1000])), Some(Bytes::from(vec![7; 9])), None]);
    assert_eq!(next(&mut first).await, Some(Ok(Bytes::copy_from_slice(&large[..PREFIX_BYTES]))), "its length only");
    assert_eq!(next(&mut first).await.unwrap().unwrap().len(), 1000 - PREFIX_BYTES);
    assert_eq!(room.left(), 0);

    let mut small = room.body(frames(&message(SMALL_BYTES), 1 << 20));
    assert_eq!(next(&mut small).await.unwrap().unwrap().len(), PREFIX_BYTES + SMALL_BYTES as usize);

    let mut second = room.body(frames(&large, 1 << 20));
    assert_eq!(next(&mut second).await.unwrap().unwrap().len(), PREFIX_BYTES);
    let mut rest = looked_at(next(&mut second));
    assert!(rest.is_waiting());
    drop(first);
    assert_eq!(rest.finish().await.unwrap().unwrap().len(), LARGE as usize);
}

#[tokio::test]
async fn a_message_that_stops_in_the_middle_ends_its_stream_and_gives_its_room_back() {
    let room = Room::new(LARGE);
    let mut body = room.body([Some(Bytes::copy_from_slice(&message(LARGE)[..99])), None, None]);
    body.room.message_timeout = Duration::from_millis(1);
    assert!(next(&mut body).await.is_some());
    assert!(next(&mut body).await.is_some());
    assert_eq!(room.left(), 0);
    assert_eq!(next(&mut body).await, Some(Err(tonic::Code::DeadlineExceeded)));
    assert_eq!(room.left(), LARGE as usize);
}

#[tokio::test]
async fn a_length_over_the_limit_is_left_to_the_decoder() {
    let room = Room::new(LARGE);
    let mut body = room.body([Some(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1]))]);
    assert_eq!(next(&mut body).await.unwrap().unwrap().len(), 6);
    assert_eq!(room.left(), LARGE as usize);
}

/// A future that is looked at before it is waited for.
struct Waiting<F>(Pin<Box<F>>);

fn looked_at<F: Future>(future: F) -> Waiting<F> {
    Waiting(Box::pin(future))
}

impl<F: Future> Waiting<F> {
    fn is_waiting(&mut self) -> bool {
        self.0.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending()
    }

    async fn finish(self) -> F::Output {
        self.0.await
    }
}
