//! The Rust client of the SDK against the server.

use futures::StreamExt;
use safelmm_client::{Client, ClientError, CompletionRequest};

use crate::support::TestApp;

#[tokio::test]
async fn whole_and_streamed_answers_are_the_same() {
    let app = TestApp::start().await;
    let client = Client::new(&app.base);
    for rating in ["G", "R"] {
        let request = CompletionRequest {
            seed: Some(3),
            max_tokens: Some(20),
            ignore_eos: true,
            ..CompletionRequest::rated("Once upon a time", rating)
        };
        let whole = client.complete(&request).await.unwrap();
        assert_eq!((whole.completion_tokens, &whole.finish_reason[..]), (20, "length"));
        assert_eq!(whole.safelmm["rating"], rating);
        let pieces: Vec<_> = client.stream(&request).await.unwrap().collect().await;
        assert!(pieces.len() > 1, "the answer came in one piece");
        let streamed: String = pieces.into_iter().map(|piece| piece.unwrap()).collect();
        assert_eq!(streamed, whole.text);
    }
}

#[tokio::test]
async fn errors_are_typed() {
    let app = TestApp::start().await;
    let client = Client::new(&app.base);
    match client.complete(&CompletionRequest::rated("x", "NC-17")).await {
        Err(ClientError::Refused { status, param, message, .. }) => {
            assert_eq!((status.as_u16(), param.as_deref()), (400, Some("safelmm.rating")));
            assert!(message.contains("NC-17"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let nobody = Client::new("http://127.0.0.1:9");
    assert!(matches!(nobody.complete(&CompletionRequest::default()).await, Err(ClientError::Transport(_))));
}
