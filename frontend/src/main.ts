import { mount } from "svelte";
import App from "./App.svelte";
import "./page.css";
import { loadWords } from "./words.svelte";

await loadWords();
mount(App, { target: document.body });
