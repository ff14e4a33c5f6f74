// Keeps the page up to date. The server sends what stands in <main>; only what has changed is
// changed, so that the focus, the selection and the place of a screen reader stay where they are.
"use strict";
(() => {
	const main = document.getElementById("main");
	const live = document.getElementById("live");
	const button = document.getElementById("pause");
	const again = 5000; // milliseconds, after the server did not want us
	let source = null;

	const key = (node) => node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;

	const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && a.id === b.id && key(a) === key(b);

	// patch makes the node old what fresh is.
	function patch(old, fresh) {
		if (old.nodeType !== Node.ELEMENT_NODE) {
			if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
			return;
		}
		for (const a of [...old.attributes]) if (!fresh.hasAttribute(a.name)) old.removeAttribute(a.name);
		for (const a of fresh.attributes) if (old.getAttribute(a.name) !== a.value) old.setAttribute(a.name, a.value);
		children(old, fresh);
	}

	// children does so for what is in them. Rows that are gone are removed first: then those that stay
	// are in their order, and new ones go between them.
	function children(old, fresh) {
		const wanted = new Set([...fresh.childNodes].map(key));
		for (const node of [...old.childNodes]) if (key(node) !== null && !wanted.has(key(node))) node.remove();
		let at = old.firstChild;
		for (const node of fresh.childNodes) {
			if (at && alike(at, node)) {
				patch(at, node);
				at = at.nextSibling;
				continue;
			}
			let there = at;
			while (there && !alike(there, node)) there = there.nextSibling;
			if (there && key(node) !== null) {
				patch(there, node);
				// What is moved loses the focus: rather does what is in front of it go, if it has no key.
				while (at !== there && key(at) === null) at = dropped(at);
				if (at === there) at = at.nextSibling;
				else old.insertBefore(there, at);
			} else {
				old.insertBefore(document.importNode(node, true), at);
			}
		}
		while (at) at = dropped(at);
	}

	// dropped removes a node, and returns the one after it.
	function dropped(node) {
		const next = node.nextSibling;
		node.remove();
		return next;
	}

	function say(text) {
		if (live.textContent !== text) live.textContent = text;
	}

	function follow() {
		source = new EventSource(location.href);
		source.onopen = () => say("Live");
		source.onmessage = (event) => {
			const page = new DOMParser().parseFromString("<main>" + event.data + "</main>", "text/html");
			children(main, page.querySelector("main"));
		};
		source.onerror = () => {
			say("Not connected, trying again");
			if (source.readyState === EventSource.CLOSED) setTimeout(() => { if (source) follow(); }, again);
		};
	}

	function stop() {
		if (source) source.close();
		source = null;
	}

	button.hidden = false;
	button.addEventListener("click", () => {
		const paused = button.getAttribute("aria-pressed") !== "true";
		button.setAttribute("aria-pressed", String(paused));
		stop();
		if (paused) say("Paused");
		else follow();
	});
	window.addEventListener("pagehide", stop);
	window.addEventListener("pageshow", (event) => { if (event.persisted && button.getAttribute("aria-pressed") !== "true") follow(); });
	follow();
})();
