// The API key, asked for where the server wants one; it is forgotten when the tab is closed.

const KEPT = "weitiao.key";

/** What the key is asked for with: the server's sentence; null while none is asked for. */
export const door = $state<{ sentence: string | null }>({ sentence: null });

let kept: string | null = null;
try {
  kept = sessionStorage.getItem(KEPT);
} catch {
  // it holds until the page is loaded again
}
let asked: Promise<boolean> | null = null;
let answer: (given: boolean) => void;

export function key(): string | null {
  return kept;
}

/** Ask for a key, once for all who wait; false: the user gave none. */
export function askForKey(sentence: string): Promise<boolean> {
  door.sentence = sentence;
  asked ??= new Promise((settle) => (answer = settle));
  return asked;
}

/** Take the user's answer; null: no key. */
export function giveKey(given: string | null): void {
  if (given !== null) {
    kept = given;
    try {
      sessionStorage.setItem(KEPT, given);
    } catch {
      // as above
    }
  }
  door.sentence = null;
  asked = null;
  answer(given !== null);
}
