/* Lets an interface receive packets of clients in bursts, without a wire, and prints the nanoseconds that one takes:
 * to be received, and whatever is done with it on this processor.
 *
 * bursts OBJECT INTERFACE MAC SOURCE VIP PACKETS BURST
 *
 * PACKETS requests of 44 octets from SOURCE to port 80 of VIP, to this MAC address. (BPF_PROG_TEST_RUN with
 * BPF_F_TEST_XDP_LIVE_FRAMES, Linux 5.18: the buffers are made of recycled pages, as drivers do it.)
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LIVE_FRAMES 2
#define IN_DRIVER 4
#define OCTETS (14 + 20 + 32 + 44)

static double nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e9 + now.tv_nsec;
}

static void write_frame(unsigned char *frame, char **words)
{
    static const unsigned char ip[] = {0x45, 0, 0, OCTETS - 14, 0, 7, 0x40, 0, 64, 6, 0, 0};
    static const unsigned char tcp[] = {0, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x18, 4, 0};
    unsigned int sum = 0;

    for (int place = 0; place < 6; place++)
        frame[place] = strtoul(words[3] + 3 * place, 0, 16);
    memcpy(frame + 6, "\2\0\0\0\0\x99\x08\0", 8);
    memcpy(frame + 14, ip, sizeof ip);
    inet_pton(AF_INET, words[4], frame + 26);
    inet_pton(AF_INET, words[5], frame + 30);
    for (int place = 14; place < 34; place += 2)
        sum += frame[place] << 8 | frame[place + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~(sum + (sum >> 16)) & 0xffff;
    frame[24] = sum >> 8;
    frame[25] = sum;
    memcpy(frame + 34, tcp, sizeof tcp);
}

int main(int count, char **words)
{
    unsigned char frame[OCTETS] = {0}, addresses[16];
    struct bpf_object *object;
    struct xdp_md context = {.data_end = sizeof frame};
    int interface, receiving, passing, refused;
    double began;

    if (count != 8)
        return 2;
    write_frame(frame, words);
    memcpy(addresses, frame, sizeof addresses);
    interface = context.ingress_ifindex = if_nametoindex(words[2]);
    object = bpf_object__open(words[1]);
    if (!object ||
        bpf_map__set_initial_value(bpf_object__find_map_by_name(object, ".data"), addresses, sizeof addresses) ||
        bpf_object__load(object))
        return 1;
    receiving = bpf_program__fd(bpf_object__find_program_by_name(object, "receive"));
    passing = bpf_program__fd(bpf_object__find_program_by_name(object, "pass"));
    if (bpf_xdp_attach(interface, passing, IN_DRIVER, NULL))
        return 1;
    LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = sizeof frame, .ctx_in = &context,
                .ctx_size_in = sizeof context, .repeat = atoi(words[6]), .flags = LIVE_FRAMES,
                .batch_size = atoi(words[7]));
    began = nanoseconds();
    refused = bpf_prog_test_run_opts(receiving, &run);
    printf("%.0f\n", (nanoseconds() - began) / atoi(words[6]));
    bpf_xdp_detach(interface, IN_DRIVER, NULL);
    if (refused)
        perror("packets were not received");
    return !!refused;
}
