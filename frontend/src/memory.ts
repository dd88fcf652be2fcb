// Conversations in this browser's memory, each under a name of its own: two tabs that are open at
// once never write over each other's.

import type { Conversation } from "./shapes";

const PREFIX = "weitiao.chat.";

function read(name: string): Conversation | null {
  try {
    const found = JSON.parse(localStorage.getItem(name)!) as Conversation;
    for (const version of found.turns.flatMap((t) => t.columns.flatMap((c) => c.versions))) {
      if (version.state === "running") version.state = "stopped"; // its page was closed
    }
    return found;
  } catch {
    return null; // gone, or of another time: left as it is
  }
}

/** Return every conversation, the latest first. */
export function recall(): Conversation[] {
  let names: string[] = [];
  try {
    names = Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
  } catch {
    // the browser keeps nothing for this page
  }
  return names
    .map(read)
    .filter((found) => found !== null)
    .sort((a, b) => b.changed - a.changed);
}

/** Keep a conversation; false: the browser has no room for it. */
export function keep(conversation: Conversation): boolean {
  try {
    localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
    return true;
  } catch {
    return false;
  }
}

export function forget(id: string): void {
  localStorage.removeItem(PREFIX + id);
}

/** Call `changed` with what another tab kept (null: it forgot) of a conversation. */
export function watch(changed: (id: string, found: Conversation | null) => void): void {
  addEventListener("storage", ({ key }) => {
    if (key?.startsWith(PREFIX)) changed(key.slice(PREFIX.length), read(key));
  });
}
