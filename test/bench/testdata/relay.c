/* The least that can stand between one client with a persistent connection and
 * one worker: a line is passed on, and its answer goes back as a netstring.
 * Usage: relay SOCKET WORKER
 */
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <signal.h>
#include <unistd.h>

static void serve(int client, int to, int from)
{
	char line[4096], answer[4200];
	ssize_t n = read(client, line, sizeof line); /* hello */

	if (n <= 0 || write(client, HELLO_OK, sizeof HELLO_OK - 1) < 0)
		return;
	while ((n = read(client, line, sizeof line)) > 0) {
		if (write(to, line, n) != n || (n = read(from, line, sizeof line)) <= 0)
			return;
		int length = snprintf(answer, sizeof answer, "%zd:", n);
		memcpy(answer + length, line, n);
		answer[length + n] = ',';
		if (write(client, answer, length + n + 1) < 0)
			return;
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int in[2], out[2];

	if (argc != 3 || strlen(argv[1]) >= sizeof address.sun_path || pipe(in) || pipe(out))
		return 1;
	signal(SIGPIPE, SIG_IGN);
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(in[0], 0);
		dup2(out[1], 1);
		for (int fd = 3; fd < 16; fd++)
			close(fd);
		execl(argv[2], argv[2], (char *)0);
		_exit(1);
	}
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	strcpy(address.sun_path, argv[1]);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 16))
		return 1;
	for (;;) {
		int client = accept(listener, 0, 0);
		if (client < 0)
			return 1;
		serve(client, in[1], out[0]);
		close(client);
	}
}
