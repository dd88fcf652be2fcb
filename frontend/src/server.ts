// The server's side of every conversation. A refusal is thrown with the server's own sentence.

import { EventSourceParserStream } from "eventsource-parser/stream";
import { askForKey, key } from "./key.svelte";
import type { Chosen, Message, Model, Thumb } from "./shapes";
import { say, tongue } from "./words.svelte";

export class Refused extends Error {}

/** A part of an answer, as it comes. */
export interface Piece {
  requestId?: string;
  text?: string;
  reasoning?: string;
  /** Why the answer is over. */
  finish?: string;
}

export interface Asked extends Chosen {
  model: string;
  messages: Message[];
}

interface Chunk {
  error?: { message: string };
  choices?: {
    delta: { content?: string | null; reasoning_content?: string | null };
    finish_reason?: string | null;
  }[];
}

async function sentence(reply: Response): Promise<string> {
  try {
    const said = ((await reply.json()) as { error: { message: unknown } }).error.message;
    if (typeof said === "string") return said;
  } catch {
    // not from weitiao: a proxy's page, perhaps
  }
  return say("strange", { status: reply.status });
}

async function call(path: string, init: RequestInit = {}): Promise<Response> {
  for (;;) {
    const used = key();
    const headers = new Headers({ "Accept-Language": tongue() });
    if (used) headers.set("Authorization", `Bearer ${used}`);
    if (init.body) headers.set("Content-Type", "application/json");
    let reply: Response;
    try {
      reply = await fetch(path, { ...init, headers });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new Refused(say("lost"));
    }
    if (reply.ok) return reply;
    const refusal = await sentence(reply);
    const another = key() !== used; // it was given while this request was on its way
    if (reply.status !== 401 || !(another || (await askForKey(refusal)))) {
      throw new Refused(refusal);
    }
  }
}

export async function listModels(): Promise<Model[]> {
  const reply = await call("./v1/models");
  const { data } = (await reply.json()) as {
    data: { id: string; weitiao?: Partial<Omit<Model, "id">> }[];
  };
  return data.map(({ id, weitiao }) => ({
    id,
    role: weitiao?.role ?? "model",
    system: weitiao?.system ?? null,
    defaults: weitiao?.defaults ?? {},
  }));
}

/** Ask a model; `hear` is told every piece. Aborting `signal` throws and ends the answer there. */
export async function complete(
  asked: Asked,
  signal: AbortSignal,
  hear: (piece: Piece) => void,
): Promise<void> {
  const body = JSON.stringify({ ...asked, stream: true });
  const reply = await call("./v1/chat/completions", { method: "POST", body, signal });
  hear({ requestId: reply.headers.get("x-request-id") ?? "" });
  const events = reply.body!
    .pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array<ArrayBuffer>>)
    .pipeThrough(new EventSourceParserStream())
    .getReader();
  for (;;) {
    const { done, value } = await events.read().catch((error: unknown) => {
      if (signal.aborted) throw error;
      throw new Refused(say("lost"));
    });
    if (done) throw new Refused(say("lost")); // the end is said, never guessed
    if (value.data === "[DONE]") return;
    const { error, choices } = JSON.parse(value.data) as Chunk;
    if (error) throw new Refused(error.message);
    const choice = choices?.[0];
    if (!choice) continue;
    hear({
      text: choice.delta.content ?? "",
      reasoning: choice.delta.reasoning_content ?? "",
      ...(choice.finish_reason && { finish: choice.finish_reason }),
    });
  }
}

export async function sendFeedback(said: {
  request_id: string;
  thumb: Thumb;
  correction: string | null;
  comment: string | null;
  messages: Message[] | null;
  answer: string;
}): Promise<void> {
  await call("./v1/feedback", { method: "POST", body: JSON.stringify(said) });
}
