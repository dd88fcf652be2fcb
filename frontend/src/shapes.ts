// What goes between the page, the server and the browser's memory.

export interface Sampling {
  temperature: number;
  top_p: number;
  max_tokens: number;
  repetition_penalty: number;
  seed: number;
}

/** What the user set; what is missing is left to the server. */
export type Chosen = { [name in keyof Sampling]?: Sampling[name] };

export interface Model {
  id: string;
  role: "tuned" | "base" | "adapter" | "model";
  system: string | null;
  defaults: Chosen;
}

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

export type Thumb = "up" | "down" | null;

/** What an answer answers, so that it can be told however the conversation went on. */
export interface Origin {
  /** The system prompt in force, the model's own or the user's. */
  system: string | null;
  /** Of each turn before, the column and the version that the conversation went on with. */
  way: [column: number, version: number][];
}

/** One answer. Origin again, a model gives another version of it. */
export interface Version {
  text: string;
  reasoning: string;
  state: "running" | "done" | "stopped" | "failed";
  /** It reached the limit of its length. */
  cut: boolean;
  /** Why it failed, as the server says it. */
  error: string;
  requestId: string;
  thumb: Thumb;
  correction: string;
  comment: string;
  /** Missing where an earlier page kept the answer. */
  origin?: Origin;
}

export interface Column {
  model: string;
  versions: Version[];
  shown: number;
}

/** A question and its answers: one, or two side by side. */
export interface Turn {
  question: string;
  columns: Column[];
  /** The column whose answer the conversation goes on with, for both models. */
  chosen: number;
}

export interface Settings {
  /** The model that answers, and the one beside it where `compare` is on. */
  models: [string, string];
  compare: boolean;
  /** null: each model's own. */
  system: string | null;
  sampling: Chosen;
}

export interface Conversation {
  id: string;
  title: string;
  /** Milliseconds since 1970. */
  changed: number;
  settings: Settings;
  turns: Turn[];
}
