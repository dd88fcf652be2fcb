// The conversations and what is under way in them.

import { SvelteMap } from "svelte/reactivity";
import { forget, keep, recall, watch } from "./memory";
import { along, wayToLast } from "./rows";
import { complete, listModels, type Piece, Refused } from "./server";
import type { Column, Conversation, Model, Settings, Version } from "./shapes";
import { say } from "./words.svelte";

const TITLE_LETTERS = 40;

/** A name of its own; `crypto.randomUUID` is missing where the address is http and not this computer's. */
function unique(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

class Chat {
  models = $state<Model[]>([]);
  /** The latest first; those without a question are not kept. */
  list = $state<Conversation[]>([]);
  current = $state<Conversation>(this.#empty());
  /** What went wrong and belongs to no answer. */
  notice = $state("");
  #running = new SvelteMap<string, AbortController>();

  async start(): Promise<void> {
    this.list = recall();
    const latest = this.list[0];
    if (latest) this.current = latest;
    watch((id, found) => this.#takeOver(id, found));
    await this.load();
  }

  async load(): Promise<void> {
    this.notice = "";
    try {
      this.models = await listModels();
    } catch (error) {
      this.notice = (error as Error).message;
      return;
    }
    this.#fit(this.current);
  }

  get busy(): boolean {
    return this.#running.has(this.current.id);
  }

  model(id: string): Model | undefined {
    return this.models.find((model) => model.id === id);
  }

  open(conversation: Conversation): void {
    this.current = conversation;
    this.#fit(this.current);
  }

  begin(): void {
    this.open(this.#empty($state.snapshot(this.current.settings) as Settings));
  }

  rename(conversation: Conversation, title: string): void {
    conversation.title = title.trim() || conversation.title;
    this.#keep(conversation);
  }

  delete({ id }: Conversation): void {
    this.#running.get(id)?.abort();
    forget(id);
    this.#drop(id);
  }

  /** Keep what was changed in the current conversation. */
  changed(): void {
    this.#keep(this.current);
  }

  /** Keep what came so far: the page is being closed. */
  leave(): void {
    for (const one of this.list) if (this.#running.has(one.id)) this.#keep(one);
  }

  async send(question: string): Promise<void> {
    const { settings, turns } = this.current;
    const asked = settings.compare ? settings.models : settings.models.slice(0, 1);
    const columns = asked.map((model): Column => ({ model, versions: [], shown: 0 }));
    turns.push({ question, columns, chosen: 0 });
    if (turns.length === 1) {
      this.current.title = [...question.replace(/\s+/g, " ")].slice(0, TITLE_LETTERS).join("");
      this.list.unshift(this.current);
    }
    await this.#answer(this.current, this.current.turns.at(-1)!.columns);
  }

  async again(column: Column): Promise<void> {
    await this.#answer(this.current, [column]);
  }

  stop(): void {
    this.#running.get(this.current.id)?.abort();
  }

  async #answer(conversation: Conversation, columns: Column[]): Promise<void> {
    const stopper = new AbortController();
    this.#running.set(conversation.id, stopper);
    conversation.changed = Date.now();
    const answering = columns.map((column) => this.#ask(conversation, column, stopper.signal));
    this.#keep(conversation);
    await Promise.all(answering);
    this.#running.delete(conversation.id);
    this.#keep(conversation);
  }

  async #ask(conversation: Conversation, column: Column, signal: AbortSignal): Promise<void> {
    const { settings, turns } = conversation;
    const way = wayToLast(turns);
    column.versions.push({
      text: "", reasoning: "", state: "running", cut: false, error: "",
      requestId: "", thumb: null, correction: "", comment: "",
      origin: { system: settings.system ?? this.model(column.model)?.system ?? null, way },
    });
    column.shown = column.versions.length - 1;
    const version = column.versions[column.shown]!;
    const system = settings.system === null ? [] : [{ role: "system" as const, content: settings.system }];
    const messages = [...system, ...along(turns, way)];
    try {
      const asked = { ...settings.sampling, model: column.model, messages };
      await complete(asked, signal, (piece) => add(version, piece));
      version.state = "done";
    } catch (error) {
      version.state = signal.aborted ? "stopped" : "failed";
      if (!signal.aborted) version.error = error instanceof Refused ? error.message : say("lost");
    }
  }

  #empty(settings?: Settings): Conversation {
    const fresh: Settings = { models: ["", ""], compare: false, system: null, sampling: {} };
    return { id: unique(), title: "", changed: 0, settings: settings ?? fresh, turns: [] };
  }

  /** Put models that are served in the place of those that are not. */
  #fit({ settings }: Conversation): void {
    const [first, second] = settings.models;
    const tuned = this.model(first) ?? this.models.find((m) => m.role === "tuned") ?? this.models[0];
    if (!tuned) return;
    const others = this.models.filter((model) => model.id !== tuned.id);
    const base = this.model(second) ?? others.find((m) => m.role === "base") ?? others[0];
    settings.models = [tuned.id, base?.id ?? ""];
    settings.compare &&= base !== undefined;
  }

  #keep(conversation: Conversation): void {
    if (!this.list.some(({ id }) => id === conversation.id)) return; // empty, or deleted meanwhile
    if (!keep(conversation)) this.notice = say("full");
    this.list.sort((a, b) => b.changed - a.changed);
  }

  #takeOver(id: string, found: Conversation | null): void {
    if (this.#running.has(id)) return;
    const at = this.list.findIndex((one) => one.id === id);
    if (!found) this.#drop(id);
    else if (at < 0) this.list.unshift(found);
    else this.list[at] = found;
    if (found && this.current.id === id) this.open(this.list.find((one) => one.id === id)!);
  }

  #drop(id: string): void {
    this.list = this.list.filter((one) => one.id !== id);
    if (this.current.id === id) this.begin();
  }
}

function add(version: Version, piece: Piece): void {
  version.requestId = piece.requestId ?? version.requestId;
  version.text += piece.text ?? "";
  version.reasoning += piece.reasoning ?? "";
  version.cut ||= piece.finish === "length";
}

export const chat = new Chat();
